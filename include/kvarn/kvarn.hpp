// KVarN: a compressed KV cache for transformer models. The C++ interface, C++20: all of it.
#pragma once

#include <kvarn/kvarn.h>
#include <kvarn/version.h>

#include <kvarn/cache.hpp>
#include <kvarn/codec.hpp>
#include <kvarn/rows.hpp>
#include <kvarn/session.hpp>
#include <kvarn/status.hpp>
