#ifndef CUBE_BASE_STATE_IO_H_
#define CUBE_BASE_STATE_IO_H_

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.h"

namespace cube {

// What may stand in saved state as it lies in memory: no pointers to follow and no padding whose
// bytes would be anybody's.
template <typename T>
concept SavedObject =
    std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

// Collects saved state: objects as their bytes (little-endian, as on every host of ours) and byte
// strings with their length. What is written is read back by a StateReader in the same order.
class StateWriter {
 public:
  template <SavedObject T>
  void Put(const T& object) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&object);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof object);
  }
  // An object of the kernel's, whose padding its maker has set to zero.
  template <typename T>
  void PutForeign(const T& object) {
    static_assert(std::is_trivially_copyable_v<T>);
    PutBytes({reinterpret_cast<const uint8_t*>(&object), sizeof object});
  }
  template <typename T>
  void PutArray(const std::vector<T>& array) {
    static_assert(std::is_trivially_copyable_v<T>);
    PutBytes({reinterpret_cast<const uint8_t*>(array.data()), array.size() * sizeof(T)});
  }
  void PutBytes(std::span<const uint8_t> bytes) {
    Put(static_cast<uint32_t>(bytes.size()));
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  // Without their length: nothing comes after them, and TakeRest() reads them.
  void PutRest(std::span<const uint8_t> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  }
  void PutString(const std::string& text) {
    PutBytes({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  }

  const std::vector<uint8_t>& bytes() const { return bytes_; }
  std::vector<uint8_t> Take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

// Reads saved state that may be anything: every length is checked against what is there.
class StateReader {
 public:
  // `bytes` must stay while this is used; `what` names it in errors.
  StateReader(std::span<const uint8_t> bytes, std::string what)
      : bytes_(bytes), what_(std::move(what)) {}

  template <SavedObject T>
  Status Get(T* object) {
    if (bytes_.size() < sizeof(T)) {
      return Errorf("%s ends %zu bytes too early", what_.c_str(), sizeof(T) - bytes_.size());
    }
    memcpy(object, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return OkStatus();
  }
  // Takes a version number and refuses any but `wanted`.
  Status GetVersion(uint32_t wanted) {
    uint32_t version = 0;
    CUBE_TRY(Get(&version));
    if (version == wanted) return OkStatus();
    return Errorf("%s is of version %u, this is version %u", what_.c_str(), version, wanted);
  }
  // What PutForeign() wrote; an error if that was of another size.
  template <typename T>
  Status GetForeign(T* object) {
    static_assert(std::is_trivially_copyable_v<T>);
    CUBE_ASSIGN(std::span<const uint8_t> bytes, GetBytes(sizeof *object));
    if (bytes.size() != sizeof *object) {
      return Errorf("%s has %zu bytes where %zu are wanted", what_.c_str(), bytes.size(),
                    sizeof *object);
    }
    memcpy(static_cast<void*>(object), bytes.data(), sizeof *object);
    return OkStatus();
  }
  // What PutArray() wrote: at most `limit` elements.
  template <typename T>
  Status GetArray(size_t limit, std::vector<T>* array) {
    static_assert(std::is_trivially_copyable_v<T>);
    CUBE_ASSIGN(std::span<const uint8_t> bytes, GetBytes(limit * sizeof(T)));
    if (bytes.size() % sizeof(T) != 0) {
      return Errorf("%s has an array of %zu bytes, not a multiple of %zu", what_.c_str(),
                    bytes.size(), sizeof(T));
    }
    array->resize(bytes.size() / sizeof(T));
    if (!bytes.empty()) memcpy(static_cast<void*>(array->data()), bytes.data(), bytes.size());
    return OkStatus();
  }
  // A view into the bytes read from; an error if longer than `limit`.
  Result<std::span<const uint8_t>> GetBytes(size_t limit) {
    uint32_t size = 0;
    CUBE_TRY(Get(&size));
    if (size > limit)
      return Errorf("%s: %u bytes, at most %zu are valid", what_.c_str(), size, limit);
    if (size > bytes_.size()) {
      return Errorf("%s: %u bytes announced, %zu left", what_.c_str(), size, bytes_.size());
    }
    std::span<const uint8_t> result = bytes_.first(size);
    bytes_ = bytes_.subspan(size);
    return result;
  }
  Result<std::string> GetString(size_t limit) {
    CUBE_ASSIGN(std::span<const uint8_t> bytes, GetBytes(limit));
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  // All that is left: a view into the bytes read from.
  std::span<const uint8_t> TakeRest() { return std::exchange(bytes_, {}); }
  // An error if anything is left: what was saved and what is read must be the same thing.
  Status End() const {
    if (bytes_.empty()) return OkStatus();
    return Errorf("%s has %zu bytes too many", what_.c_str(), bytes_.size());
  }

 private:
  std::span<const uint8_t> bytes_;
  std::string what_;
};

}  // namespace cube

#endif  // CUBE_BASE_STATE_IO_H_
