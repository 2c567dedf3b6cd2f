#include "pool/outcome.h"

#include <cstdarg>
#include <cstdio>

namespace cube::pool {

const char* FaultName(Fault fault) {
  switch (fault) {
    case Fault::kInvalid:
      return "invalid";
    case Fault::kNotFound:
      return "not_found";
    case Fault::kConflict:
      return "conflict";
    case Fault::kNoCapacity:
      return "no_capacity";
    case Fault::kDraining:
      return "draining";
    case Fault::kInternal:
      return "internal";
  }
  return "internal";
}

Refusal Refuse(Fault fault, const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return {fault, text};
}

}  // namespace cube::pool
