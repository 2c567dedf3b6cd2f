#ifndef CUBE_SNAPSHOT_JSON_FIELDS_H_
#define CUBE_SNAPSHOT_JSON_FIELDS_H_

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace cube::snapshot {

// The fields of a JSON object that may be anything: an error names the field.
class JsonFields {
 public:
  explicit JsonFields(const boost::json::object& object) : object_(object) {}

  bool Has(const char* name) const { return object_.contains(name); }
  Result<std::string> String(const char* name) const;
  Result<uint64_t> Number(const char* name) const;
  Result<bool> Bool(const char* name) const;
  Result<std::vector<std::string>> Strings(const char* name, size_t limit) const;
  Result<JsonFields> Object(const char* name) const;
  // Of a list of objects.
  Result<std::vector<JsonFields>> Objects(const char* name, size_t limit) const;

 private:
  Result<const boost::json::value*> Find(const char* name) const;
  Result<const boost::json::array*> Array(const char* name, size_t limit) const;

  const boost::json::object& object_;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_JSON_FIELDS_H_
