#include "python_errors.hpp"

#include <array>
#include <string>

namespace kvarn::python {
namespace {

namespace py = pybind11;

// Exceptions live as long as the process: the module is never unloaded. Index: the status.
std::array<PyObject*, KVARN_STATUS_CUT_SHORT + 1> classes{};

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
  add(KVARN_STATUS_NOT_FOUND, "NotFound", PyExc_FileNotFoundError, "There is no such session file.");
  add(KVARN_STATUS_READ_FAILED, "ReadFailed", PyExc_OSError, "The system does not let the file be read.");
  add(KVARN_STATUS_WRITE_FAILED, "WriteFailed", PyExc_OSError, "The system does not let the file be written.");
  add(KVARN_STATUS_NO_SPACE, "NoSpace", PyExc_OSError, "The file system is full.");
  add(KVARN_STATUS_BUSY, "Busy", PyExc_OSError, "Somebody else is saving to this file.");
  add(KVARN_STATUS_NOT_A_SESSION, "NotASession", PyExc_ValueError, "It does not begin as a session does.");
  add(KVARN_STATUS_UNKNOWN_VERSION, "UnknownVersion", PyExc_ValueError, "A session of an unknown format version.");
  add(KVARN_STATUS_OTHER_SHAPE, "OtherShape", PyExc_ValueError,
      "The cache has other layers, widths, tiles or sink than the session.");
  add(KVARN_STATUS_TOO_LARGE, "TooLarge", PyExc_ValueError, "More bytes than the receiver takes.");
  // Which piece it is stands in the message.
  add(KVARN_STATUS_DAMAGED_HEADER, "Damaged", PyExc_ValueError, "A session that is not as it was written.");
  for (const kvarn_status status :
       {KVARN_STATUS_NO_COMMIT, KVARN_STATUS_DAMAGED_INDEX, KVARN_STATUS_DAMAGED_TILE, KVARN_STATUS_DAMAGED_RECORD,
        KVARN_STATUS_DAMAGED_ROWS, KVARN_STATUS_DAMAGED_HISTORY, KVARN_STATUS_DAMAGED_SAMPLES,
        KVARN_STATUS_CUT_SHORT}) {
    classes[status] = classes[KVARN_STATUS_DAMAGED_HEADER];
  }
  py::register_exception_translator(translate);
}

}  // namespace kvarn::python
