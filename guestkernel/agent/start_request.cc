#include "guestkernel/agent/start_request.h"

#include <algorithm>
#include <cstring>

#include "base/control_abi.h"

namespace cube::agent {
namespace {

// Takes the string that `rest` starts with, and the zero byte after it, off `rest`.
Result<std::string> TakeString(std::span<const uint8_t>* rest) {
  auto end = std::find(rest->begin(), rest->end(), 0);
  if (end == rest->end()) return Error("start request: a string has no end");
  size_t length = static_cast<size_t>(end - rest->begin());
  std::string text(reinterpret_cast<const char*>(rest->data()), length);
  *rest = rest->subspan(length + 1);
  return text;
}

Status TakeStrings(uint32_t count, std::span<const uint8_t>* rest, std::vector<std::string>* out) {
  // Each takes at least its zero byte; so a count from a hostile header reserves no memory.
  if (count > rest->size()) {
    return Errorf("start request: %u strings in %zu bytes", count, rest->size());
  }
  out->reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    CUBE_ASSIGN(std::string text, TakeString(rest));
    out->push_back(std::move(text));
  }
  return OkStatus();
}

}  // namespace

Result<StartRequest> StartRequest::Parse(std::span<const uint8_t> payload) {
  abi::StartHeader header;
  if (payload.size() < sizeof header) {
    return Errorf("start request: %zu bytes, the header has %zu", payload.size(), sizeof header);
  }
  std::memcpy(&header, payload.data(), sizeof header);
  std::span<const uint8_t> rest = payload.subspan(sizeof header);
  if ((header.flags & ~abi::kStartOnConsole) != 0) {
    return Errorf("start request: unknown flags 0x%x", header.flags);
  }
  StartRequest request;
  request.on_console = (header.flags & abi::kStartOnConsole) != 0;
  request.rows = header.rows;
  request.columns = header.columns;
  CUBE_TRY(TakeStrings(header.argument_count, &rest, &request.arguments));
  CUBE_TRY(TakeStrings(header.variable_count, &rest, &request.variables));
  CUBE_ASSIGN(request.directory, TakeString(&rest));
  if (!rest.empty()) return Errorf("start request: %zu bytes too many", rest.size());
  if (request.arguments.empty() || request.arguments[0].empty()) {
    return Error("start request: no program is named");
  }
  return request;
}

void StartRequest::AddDefaults(const std::vector<std::string>& defaults) {
  for (const std::string& variable : defaults) {
    std::string name = variable.substr(0, variable.find('='));
    if (Variable(name.c_str()) == nullptr) variables.push_back(variable);
  }
}

const char* StartRequest::Variable(const char* name) const {
  size_t length = strlen(name);
  for (const std::string& variable : variables) {
    if (variable.size() > length && variable[length] == '=' &&
        variable.compare(0, length, name) == 0) {
      return variable.c_str() + length + 1;
    }
  }
  return nullptr;
}

}  // namespace cube::agent
