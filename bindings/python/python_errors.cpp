#include "python_errors.hpp"

#include <array>
#include <string>

namespace kvarn::python {
namespace {

namespace py = pybind11;

// Exceptions live as long as the process: the module is never unloaded. Index: the status.
std::array<PyObject*, KVARN_STATUS_FULL + 1> classes{};

PyObject* add_class(py::module_& module, const char* name, const char* doc, const py::tuple& bases) {
  const std::string full = std::string("kvarn.") + name;
  PyObject* made = PyErr_NewExceptionWithDoc(full.c_str(), doc, bases.ptr(), nullptr);
  if (made == nullptr) throw py::error_already_set();
  module.add_object(name, py::handle(made));
  return made;
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const StatusError& error) {
    const auto index = static_cast<std::size_t>(error.status());
    PyErr_SetString(classes[index < classes.size() ? index : 0], error.what());
  }
}

}  // namespace

void bind_errors(py::module_& module) {
  PyObject* base =
      add_class(module, "Error", "A call of the library that failed.", py::make_tuple(py::handle(PyExc_Exception)));
  classes[KVARN_STATUS_OK] = base;
  const auto add = [&](kvarn_status status, const char* name, PyObject* builtin, const char* doc) {
    classes[status] = add_class(module, name, doc, py::make_tuple(py::handle(base), py::handle(builtin)));
  };
  add(KVARN_STATUS_INVALID_ARGUMENT, "InvalidArgument", PyExc_ValueError, "A number outside its documented range.");
  add(KVARN_STATUS_NON_FINITE, "NonFinite", PyExc_ValueError, "A NaN or an infinity where a record must be finite.");
  add(KVARN_STATUS_OUT_OF_RANGE, "OutOfRange", PyExc_ValueError, "Rows that no record can hold.");
  add(KVARN_STATUS_OUT_OF_MEMORY, "OutOfMemory", PyExc_MemoryError,
      "The system or the limit of a cache refuses memory.");
  add(KVARN_STATUS_CORRUPT, "Corrupt", PyExc_ValueError, "Bytes that no encoder wrote.");
  add(KVARN_STATUS_OUT_OF_ORDER, "OutOfOrder", PyExc_RuntimeError,
      "A call that the state of the cache does not allow now.");
  add(KVARN_STATUS_FULL, "Full", PyExc_RuntimeError, "More than the cache was made for.");
  py::register_exception_translator(translate);
}

}  // namespace kvarn::python
