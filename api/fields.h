#ifndef CUBE_API_FIELDS_H_
#define CUBE_API_FIELDS_H_

#include <boost/json/object.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pool/outcome.h"

namespace cube::api {

// The fields of a request's JSON body, which may be anything. Reading one of another type or out of
// its range is noted, and Check() says so; what is read then is as it was. A null counts as not
// there. Fields that nobody asks for are ignored, as clients are newer than servers.
class Fields {
 public:
  // An empty body is an empty object.
  static pool::Outcome<Fields> Parse(std::string_view body);

  // Text of at most `most` bytes.
  void Text(const char* name, std::optional<std::string>* value, size_t most = 4096);
  void Flag(const char* name, std::optional<bool>* value);
  void Whole(const char* name, int64_t least, int64_t most, std::optional<int64_t>* value);
  void Texts(const char* name, std::optional<std::vector<std::string>>* value, size_t most = 1024);
  void TextMap(const char* name, std::map<std::string, std::string>* value);
  void Wholes(const char* name, int64_t least, int64_t most,
              std::optional<std::vector<int64_t>>* value);
  // Fields of an object within. The reader notes here what it finds wrong.
  std::optional<Fields> Object(const char* name);
  // Those of a list of objects.
  std::vector<Fields> Objects(const char* name, size_t most);
  // All fields' names.
  std::vector<std::string> Names() const;

  bool Has(const char* name) const;
  // Notes that what `name` says cannot be. `what`: "is not ...".
  void Fail(const std::string& name, const std::string& what);
  // What was wrong here or in an object within.
  pool::Outcome<pool::Done> Check() const;
  // The object as it came.
  const boost::json::object& object() const { return object_; }

 private:
  Fields(boost::json::object object, std::string prefix)
      : object_(std::move(object)), prefix_(std::move(prefix)) {}
  const boost::json::value* Find(const char* name) const;

  boost::json::object object_;
  std::string prefix_;  // of names in messages: "network."
  std::shared_ptr<std::optional<std::string>> wrong_ =
      std::make_shared<std::optional<std::string>>();
};

}  // namespace cube::api

#endif  // CUBE_API_FIELDS_H_
