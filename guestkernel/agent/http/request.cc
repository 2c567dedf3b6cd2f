#include "guestkernel/agent/http/request.h"

namespace cube::agent::http {
namespace {

const std::string* Find(const std::vector<std::pair<std::string, std::string>>& pairs,
                        std::string_view name) {
  for (const auto& [key, value] : pairs) {
    if (key == name) return &value;
  }
  return nullptr;
}

}  // namespace

const std::string* Request::Field(std::string_view name) const { return Find(fields, name); }

const std::string* Request::Parameter(std::string_view name) const { return Find(query, name); }

}  // namespace cube::agent::http
