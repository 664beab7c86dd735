// What callers bring: rows of tokens, threads, memory. Part of kvarn/kvarn.hpp.
#pragma once

#include <kvarn/kvarn.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace kvarn {
inline namespace v0 {

// The bits of an IEEE 754 binary16 value.
using Half = std::uint16_t;

template <class Value>
concept RowValue = std::is_same_v < std::remove_const_t<Value>,
float > || std::is_same_v<std::remove_const_t<Value>, Half>;

template <RowValue Value>
inline constexpr kvarn_type kTypeOf =
    std::is_same_v<std::remove_const_t<Value>, float> ? KVARN_TYPE_F32 : KVARN_TYPE_F16;

// Rows of tokens in the caller's memory: value (token, head, channel) is data[token * token_stride + head * head_stride
// + channel]. Strides count values.
template <RowValue Value>
struct Rows {
  Value* data = nullptr;
  std::size_t token_stride = 0;
  std::size_t head_stride = 0;

  // Rows [tokens, heads, dim].
  static Rows by_token(Value* data, std::size_t heads, std::size_t dim) { return {data, heads * dim, dim}; }
  // Rows [heads, tokens, dim].
  static Rows by_head(Value* data, std::size_t tokens, std::size_t dim) { return {data, dim, tokens * dim}; }

  operator Rows<const Value>() const requires(!std::is_const_v<Value>) { return {data, token_stride, head_stride}; }
  kvarn_const_rows reading() const { return {data, kTypeOf<Value>, token_stride, head_stride}; }
  kvarn_rows writing() const requires(!std::is_const_v<Value>) {
    return {data, kTypeOf<Value>, token_stride, head_stride};
  }
};

// A piece of work: task(item, worker).
class Task {
 public:
  Task(kvarn_task task, void* arg) : task_(task), arg_(arg) {}
  void operator()(std::size_t item, std::uint32_t worker) const { task_(arg_, item, worker); }

 private:
  kvarn_task task_;
  void* arg_;
};

// The caller's threads; without any, the calling thread does everything.
class Runner {
 public:
  Runner() = default;
  // run(items, task) calls task(item, worker) once for every item below `items`, with worker < workers (1 to 1024) and
  // no two calls at once for the same worker, and returns when all are done. `run` must outlive the runner and not
  // throw.
  template <std::invocable<std::size_t, Task> Run>
  Runner(std::uint32_t workers, Run& run) {
    runner_.context = const_cast<void*>(static_cast<const void*>(std::addressof(run)));
    runner_.workers = workers;
    runner_.run = [](void* context, std::size_t items, kvarn_task task, void* arg) {
      (*static_cast<Run*>(context))(items, Task(task, arg));
    };
  }

  std::uint32_t workers() const { return runner_.workers; }
  const kvarn_runner* get() const { return &runner_; }

 private:
  kvarn_runner runner_ = KVARN_RUNNER_INIT;
};

}  // namespace v0
}  // namespace kvarn
