#ifndef CUBE_POOL_REQUEST_FIELDS_H_
#define CUBE_POOL_REQUEST_FIELDS_H_

#include <boost/json/object.hpp>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "pool/outcome.h"

namespace cube::pool {

// The fields of a request, which may be anything. A field of another type or range is kInvalid; so
// is, by Finish(), one that nobody has asked for.
class RequestFields {
 public:
  static Outcome<RequestFields> Parse(std::string_view line);

  Outcome<std::string> String(const char* name);
  Outcome<std::string> String(const char* name, std::string fallback);
  Outcome<bool> Bool(const char* name, bool fallback);
  Outcome<std::optional<uint64_t>> Number(const char* name, uint64_t limit);
  Outcome<double> Real(const char* name, double fallback, double limit);
  Outcome<std::vector<std::string>> Strings(const char* name);
  Outcome<std::map<std::string, std::string>> StringMap(const char* name);
  Outcome<Done> Finish() const;

  // The text of the field "tag", which the answer repeats; "" without one.
  const std::string& tag() const { return tag_; }

 private:
  explicit RequestFields(boost::json::object object) : object_(std::move(object)) {}
  const boost::json::value* Find(const char* name);

  boost::json::object object_;
  std::set<std::string, std::less<>> asked_;
  std::string tag_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_REQUEST_FIELDS_H_
