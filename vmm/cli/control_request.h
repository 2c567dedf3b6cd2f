#ifndef CUBE_VMM_CLI_CONTROL_REQUEST_H_
#define CUBE_VMM_CLI_CONTROL_REQUEST_H_

#include <boost/json/object.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::vmm {

// A request of a control socket: one JSON object in a line, which may be anything.
class ControlRequest {
 public:
  static Result<ControlRequest> Parse(std::string_view line);

  // Fields by name. A field of another type is an error; one that is missing is `fallback`, or an
  // error where there is none.
  Result<std::string> String(const char* name) const;
  Result<std::string> String(const char* name, const std::string& fallback) const;
  Result<bool> Bool(const char* name, bool fallback) const;
  Result<uint64_t> Number(const char* name, uint64_t fallback, uint64_t limit) const;
  Result<std::vector<std::string>> Strings(const char* name) const;

 private:
  explicit ControlRequest(boost::json::object object) : object_(std::move(object)) {}

  boost::json::object object_;
};

// {"ok":false,"error":...}
std::string ErrorAnswer(const Error& error);
// The same of what asking again would not change: with "code":"invalid".
std::string InvalidAnswer(const Error& error);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_CONTROL_REQUEST_H_
