#include "api/key_store.h"

#include "api/secret.h"
#include "pool/events.h"

namespace cube::api {
namespace {

using pool::Fault;
using pool::Refuse;

constexpr size_t kMaxName = 128;
constexpr size_t kMaxKeys = 10'000;
constexpr size_t kKeyBytes = KeyStore::kDigits / 2;
constexpr size_t kPrefix = 8;
constexpr int64_t kUsedMs = 60'000;

}  // namespace

Result<KeyStore> KeyStore::Open(pool::Database* database) {
  KeyStore store(database);
  CUBE_ASSIGN(pool::Statement all,
              database->Prepare("SELECT id, name, hash, prefix, created_ms, used_ms, revoked_ms"
                                " FROM keys"));
  for (;;) {
    CUBE_ASSIGN(bool row, all.Step());
    if (!row) break;
    KeyRecord record = {all.Text(0),   all.Text(1),   all.Text(2),  all.Text(3),
                        all.Number(4), all.Number(5), all.Number(6)};
    store.hashes_[record.hash] = record.id;
    store.keys_[record.id] = std::move(record);
  }
  return store;
}

Status KeyStore::Put(const KeyRecord& record) {
  CUBE_ASSIGN(pool::Statement put,
              database_->Prepare("INSERT OR REPLACE INTO keys VALUES (?1,?2,?3,?4,?5,?6,?7)"));
  put.Bind(1, record.id).Bind(2, record.name).Bind(3, record.hash).Bind(4, record.prefix);
  put.Bind(5, record.created_ms).Bind(6, record.used_ms).Bind(7, record.revoked_ms);
  return put.Run();
}

pool::Outcome<KeyStore::Made> KeyStore::Create(const std::string& name) {
  if (name.size() > kMaxName) {
    return Refuse(Fault::kInvalid, "a key's name has at most %zu bytes", kMaxName);
  }
  if (keys_.size() >= kMaxKeys) {
    return Refuse(Fault::kNoCapacity, "there are %zu keys of at most %zu", keys_.size(), kMaxKeys);
  }
  Made made;
  made.key = "e2b_" + RandomHex(kKeyBytes);
  made.record = {RandomUuid(), name, Sha256Hex(made.key), made.key.substr(0, kPrefix),
                 pool::WallClockMs()};
  POOL_TRY(Put(made.record));
  hashes_[made.record.hash] = made.record.id;
  keys_[made.record.id] = made.record;
  return made;
}

pool::Outcome<pool::Done> KeyStore::Revoke(const std::string& id_or_name) {
  KeyRecord* found = nullptr;
  for (auto& [id, record] : keys_) {
    if (record.revoked_ms != 0 || (id != id_or_name && record.name != id_or_name)) continue;
    if (found != nullptr && id != id_or_name) {
      return Refuse(Fault::kConflict, "there are several keys \"%.64s\": revoke one by its id",
                    id_or_name.c_str());
    }
    found = &record;
  }
  if (found == nullptr) {
    return Refuse(Fault::kNotFound, "there is no valid key \"%.64s\"", id_or_name.c_str());
  }
  KeyRecord revoked = *found;
  revoked.revoked_ms = pool::WallClockMs();
  POOL_TRY(Put(revoked));
  *found = revoked;
  return pool::Done();
}

pool::Outcome<pool::Done> KeyStore::Rename(const std::string& id, const std::string& name) {
  if (name.size() > kMaxName) {
    return Refuse(Fault::kInvalid, "a key's name has at most %zu bytes", kMaxName);
  }
  auto found = keys_.find(id);
  if (found == keys_.end() || found->second.revoked_ms != 0) {
    return Refuse(Fault::kNotFound, "there is no valid key \"%.64s\"", id.c_str());
  }
  KeyRecord renamed = found->second;
  renamed.name = name;
  POOL_TRY(Put(renamed));
  found->second = renamed;
  return pool::Done();
}

std::vector<KeyRecord> KeyStore::List() const {
  std::vector<KeyRecord> all;
  for (const auto& [id, record] : keys_) all.push_back(record);
  return all;
}

// Looked up by a hash, of which nobody can choose the beginning: how long it takes tells nothing.
const KeyRecord* KeyStore::Find(const std::string& text) {
  auto found = hashes_.find(Sha256Hex(text));
  if (found == hashes_.end()) return nullptr;
  KeyRecord& record = keys_[found->second];
  if (record.revoked_ms != 0) return nullptr;
  int64_t now = pool::WallClockMs();
  if (now - record.used_ms >= kUsedMs) {
    record.used_ms = now;
    // To know it to the minute is not worth a failed request.
    (void)Put(record);
  }
  return &record;
}

}  // namespace cube::api
