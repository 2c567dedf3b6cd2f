#ifndef CUBE_API_KEY_STORE_H_
#define CUBE_API_KEY_STORE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "api/api_database.h"
#include "pool/outcome.h"

namespace cube::api {

// An API key as it is kept: what it was made of is not.
struct KeyRecord {
  std::string id;
  std::string name;
  std::string hash;    // SHA-256 of the key
  std::string prefix;  // its first characters, for people
  int64_t created_ms = 0;
  int64_t used_ms = 0;     // to the minute; 0: never
  int64_t revoked_ms = 0;  // 0: it is valid
};

// API keys. On one thread.
class KeyStore {
 public:
  static constexpr size_t kDigits = 40;  // of a key, behind "e2b_"

  // `database` outlives it.
  static Result<KeyStore> Open(pool::Database* database);

  struct Made {
    KeyRecord record;
    std::string key;  // "e2b_" and 40 hexadecimal digits: told this once
  };
  pool::Outcome<Made> Create(const std::string& name);
  // By its id or its name, if that is of one valid key only.
  pool::Outcome<pool::Done> Revoke(const std::string& id_or_name);
  // A valid one, by its id.
  pool::Outcome<pool::Done> Rename(const std::string& id, const std::string& name);
  std::vector<KeyRecord> List() const;
  // The valid key that `text`, which may be anything, is; or null.
  const KeyRecord* Find(const std::string& text);
  // Whether there has ever been one.
  bool empty() const { return keys_.empty(); }

 private:
  explicit KeyStore(pool::Database* database) : database_(database) {}
  Status Put(const KeyRecord& record);

  pool::Database* database_;
  std::map<std::string, KeyRecord> keys_;      // by id
  std::map<std::string, std::string> hashes_;  // id by hash
};

}  // namespace cube::api

#endif  // CUBE_API_KEY_STORE_H_
