#include "api/volume_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "api/secret.h"
#include "pool/events.h"

namespace cube::api {
namespace {

namespace fs = std::filesystem;
using pool::Fault;
using pool::Refuse;

constexpr char kStaging[] = "/staging/";
constexpr size_t kMaxName = 128;
constexpr uid_t kOwner = 1000;
constexpr size_t kSecretBytes = 32;

bool IsName(const std::string& name) {
  return !name.empty() && name.size() <= kMaxName &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_';
         });
}

}  // namespace

Result<VolumeStore> VolumeStore::Open(pool::Database* database, std::string folder) {
  std::error_code failed;
  fs::remove_all(folder + kStaging, failed);
  fs::create_directories(folder + kStaging, failed);
  if (!failed) fs::permissions(folder, fs::perms::owner_all, failed);
  if (failed) return Errorf("%s: %s", folder.c_str(), failed.message().c_str());
  CUBE_ASSIGN(std::string secret, Setting(database, "volume_secret", RandomHex(kSecretBytes)));
  CUBE_ASSIGN(VolumeTrash trash, VolumeTrash::Open(folder + "/trash"));
  VolumeStore store(database, std::move(folder), std::move(secret), std::move(trash));
  CUBE_ASSIGN(pool::Statement all, database->Prepare("SELECT id, name, created_ms FROM volumes"));
  for (;;) {
    CUBE_ASSIGN(bool row, all.Step());
    if (!row) break;
    store.volumes_[all.Text(0)] = {all.Text(0), all.Text(1), all.Number(2)};
  }
  return store;
}

pool::Outcome<VolumeRecord> VolumeStore::Create(const std::string& name) {
  if (!IsName(name)) {
    return Refuse(Fault::kInvalid,
                  "\"name\" is not one of at most %zu of a-z, A-Z, 0-9, '-' and '_'", kMaxName);
  }
  if (volumes_.size() >= kMost) {
    return Refuse(Fault::kNoCapacity, "there are %zu volumes of at most %zu", volumes_.size(),
                  kMost);
  }
  for (const auto& [id, volume] : volumes_) {
    if (volume.name == name) {
      return Refuse(Fault::kConflict, "there is a volume \"%s\" already", name.c_str());
    }
  }
  VolumeRecord volume = {RandomUuid(), name, pool::WallClockMs()};
  const std::string place = folder_ + "/" + volume.id;
  if (mkdir(place.c_str(), 0755) < 0 || chmod(place.c_str(), 0755) < 0 ||
      (geteuid() == 0 && chown(place.c_str(), kOwner, kOwner) < 0)) {
    return ErrnoError("%s", place.c_str());
  }
  POOL_ASSIGN(pool::Statement put, database_->Prepare("INSERT INTO volumes VALUES (?1,?2,?3)"));
  POOL_TRY(put.Bind(1, volume.id).Bind(2, volume.name).Bind(3, volume.created_ms).Run());
  volumes_[volume.id] = volume;
  return volume;
}

const VolumeRecord* VolumeStore::Find(const std::string& id) const {
  auto found = volumes_.find(id);
  return found == volumes_.end() ? nullptr : &found->second;
}

const VolumeRecord* VolumeStore::FindNamed(const std::string& name) const {
  for (const auto& [id, volume] : volumes_) {
    if (volume.name == name) return &volume;
  }
  return Find(name);
}

std::vector<VolumeRecord> VolumeStore::List() const {
  std::vector<VolumeRecord> all;
  for (const auto& [id, volume] : volumes_) all.push_back(volume);
  std::sort(all.begin(), all.end(), [](const VolumeRecord& a, const VolumeRecord& b) {
    return std::tie(a.created_ms, a.id) < std::tie(b.created_ms, b.id);
  });
  return all;
}

// The record goes first: a folder that is left by a crash is nobody's.
pool::Outcome<pool::Done> VolumeStore::Delete(const std::string& id) {
  if (Find(id) == nullptr)
    return Refuse(Fault::kNotFound, "volume \"%.64s\" not found", id.c_str());
  POOL_ASSIGN(pool::Statement remove, database_->Prepare("DELETE FROM volumes WHERE id = ?1"));
  POOL_TRY(remove.Bind(1, id).Run());
  volumes_.erase(id);
  const std::string place = folder_ + "/" + id;
  int error = trash_.Take(AT_FDCWD, place.c_str());
  if (error != 0 && error != ENOENT) {
    return Refuse(Fault::kInternal, "volume %s: %s", id.c_str(), strerror(error));
  }
  return pool::Done();
}

std::string VolumeStore::TokenOf(const std::string& id) const { return HmacHex(secret_, id); }

pool::Outcome<UniqueFd> VolumeStore::Root(const std::string& id) const {
  if (Find(id) == nullptr)
    return Refuse(Fault::kNotFound, "volume \"%.64s\" not found", id.c_str());
  POOL_ASSIGN(UniqueFd root, OpenFile(folder_ + "/" + id, O_PATH | O_DIRECTORY | O_NOFOLLOW));
  return root;
}

std::string VolumeStore::StagingPath(const std::string& upload) const {
  return folder_ + kStaging + upload;
}

bool VolumeStore::IsStaging(const std::string& path) const {
  return path.starts_with(folder_ + kStaging);
}

}  // namespace cube::api
