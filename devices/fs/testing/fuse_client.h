#ifndef CUBE_DEVICES_FS_TESTING_FUSE_CLIENT_H_
#define CUBE_DEVICES_FS_TESTING_FUSE_CLIENT_H_

#include <linux/fuse.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "devices/fs/fs.h"
#include "devices/virtio/testing/fake_driver.h"

namespace cube::devices::fs::testing {

// A directory of the host's that goes when this does, with a directory `share` in it to be shared
// and what the test puts beside that. Paths are relative to the outer one.
class HostTree {
 public:
  HostTree();
  ~HostTree();
  std::string Path(const std::string& path) const { return root_ + "/" + path; }
  std::string share() const { return Path("share"); }
  void Write(const std::string& path, std::string_view content) const;
  std::string Read(const std::string& path) const;
  void Mkdir(const std::string& path) const { std::filesystem::create_directories(Path(path)); }
  bool Exists(const std::string& path) const;
  // Permissions with the set-user-ID bits and the like.
  uint32_t Mode(const std::string& path) const;
  void Chmod(const std::string& path, uint32_t mode) const;
  void Rename(const std::string& from, const std::string& to) const;

 private:
  std::string root_;
};

// What a request was answered with.
struct Answer {
  bool replied = false;
  int error = 0;  // an errno value, or 0
  std::vector<uint8_t> payload;

  // The object at `offset` of the payload; zeros if it is too short.
  template <typename T>
  T As(size_t offset = 0) const {
    T object = {};
    if (payload.size() >= offset + sizeof object) memcpy(&object, &payload[offset], sizeof object);
    return object;
  }
  std::string text() const { return {payload.begin(), payload.end()}; }
};

struct DirectoryEntry {
  std::string name;
  uint64_t node;  // of READDIRPLUS
  uint64_t offset;
  uint32_t type;
  uint64_t inode;
};

// A guest's kernel as far as a file system device meets it: FUSE requests through the driver's
// queues.
class FuseClient {
 public:
  // Of a share of `config`, the session begun.
  explicit FuseClient(const ShareConfig& config, bool init = true);

  virtio::fake::FakeDriver& driver() { return *driver_; }
  FsDevice& device() { return static_cast<FsDevice&>(driver_->device()); }
  uint64_t Metric(const std::string& name);

  // A request of these arguments, with room for `room` bytes of payload.
  Answer Call(uint32_t opcode, uint64_t node, std::span<const uint8_t> arguments,
              uint32_t room = 4096, uint32_t queue = kRequestQueue);
  // The bytes of a request.
  static std::vector<uint8_t> Request(uint32_t opcode, uint64_t node,
                                      std::span<const uint8_t> arguments);

  // Arguments: objects as they are, text with its NUL.
  template <typename... T>
  static std::vector<uint8_t> Pack(const T&... parts) {
    std::vector<uint8_t> bytes;
    (Append(&bytes, parts), ...);
    return bytes;
  }
  template <typename... T>
  Answer Do(uint32_t opcode, uint64_t node, const T&... parts) {
    return Call(opcode, node, Pack(parts...));
  }

  Answer Init(uint32_t major = FUSE_KERNEL_VERSION, uint32_t minor = FUSE_KERNEL_MINOR_VERSION,
              uint32_t flags = ~0u);

  // ---- what a program would do; nodes and handles are 0 when it failed
  Answer Lookup(uint64_t node, const std::string& name) { return Do(FUSE_LOOKUP, node, name); }
  // The node at a path, "a/b", from the root.
  uint64_t Walk(const std::string& path);
  Answer Open(uint64_t node, uint32_t flags);
  uint64_t OpenHandle(uint64_t node, uint32_t flags) {
    return Open(node, flags).As<fuse_open_out>().fh;
  }
  Answer Read(uint64_t node, uint64_t handle, uint64_t offset, uint32_t size);
  Answer Write(uint64_t node, uint64_t handle, uint64_t offset, std::string_view data);
  Answer Release(uint64_t node, uint64_t handle);
  Answer GetAttributes(uint64_t node) { return Do(FUSE_GETATTR, node, fuse_getattr_in{}); }
  Answer SetAttributes(uint64_t node, const fuse_setattr_in& in) {
    return Do(FUSE_SETATTR, node, in);
  }
  Answer Create(uint64_t parent, const std::string& name, uint32_t flags, uint32_t mode = 0644);
  Answer Mkdir(uint64_t parent, const std::string& name, uint32_t mode = 0755);
  Answer Rename(uint64_t from, const std::string& old_name, uint64_t to,
                const std::string& new_name, uint32_t flags = 0);
  void Forget(uint64_t node, uint64_t lookups);
  std::vector<DirectoryEntry> List(uint64_t node, bool plus = false, uint32_t size = 4096);

  // Saves the device and restores it with another configuration.
  Status SaveAndRestore(const ShareConfig& config);

 private:
  template <typename T>
  static void Append(std::vector<uint8_t>* bytes, const T& part) {
    if constexpr (std::is_convertible_v<T, std::string_view>) {
      std::string_view text(part);
      bytes->insert(bytes->end(), text.begin(), text.end());
      bytes->push_back(0);
    } else {
      static_assert(std::is_trivially_copyable_v<T>);
      const auto* raw = reinterpret_cast<const uint8_t*>(&part);
      bytes->insert(bytes->end(), raw, raw + sizeof part);
    }
  }

  std::unique_ptr<virtio::fake::FakeDriver> driver_;
  uint64_t out_ = 0;  // where requests and replies lie in guest memory
  uint64_t in_ = 0;
};

}  // namespace cube::devices::fs::testing

#endif  // CUBE_DEVICES_FS_TESTING_FUSE_CLIENT_H_
