#include "devices/fs/testing/fuse_client.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace cube::devices::fs::testing {
namespace {

// A transfer with what goes before it.
constexpr size_t kBufferSize = kMaxTransfer + 8192;

constexpr uint64_t kUnique = 0x1122334455667788;

std::function<std::unique_ptr<virtio::Device>(vmm::EventLoop*)> Maker(const ShareConfig& config) {
  return [config](vmm::EventLoop* loop) -> std::unique_ptr<virtio::Device> {
    auto device = FsDevice::Create(config, loop);
    if (!device.ok()) {
      fprintf(stderr, "%s\n", device.error().message().c_str());
      abort();
    }
    return std::move(*device);
  };
}

}  // namespace

HostTree::HostTree() {
  const char* base = getenv("TEST_TMPDIR");
  root_ = std::string(base != nullptr ? base : "/tmp") + "/treeXXXXXX";
  if (mkdtemp(root_.data()) == nullptr) abort();
  // What lies above a share may be read by no other user; what is shared may.
  chmod(root_.c_str(), 0755);
  Mkdir("share");
}

HostTree::~HostTree() {
  std::error_code ignored;
  std::filesystem::remove_all(root_, ignored);
}

void HostTree::Write(const std::string& path, std::string_view content) const {
  std::ofstream(Path(path), std::ios::binary)
      .write(content.data(), static_cast<std::streamsize>(content.size()));
}

std::string HostTree::Read(const std::string& path) const {
  std::ifstream file(Path(path), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool HostTree::Exists(const std::string& path) const {
  struct stat stat;
  return lstat(Path(path).c_str(), &stat) == 0;
}

uint32_t HostTree::Mode(const std::string& path) const {
  struct stat stat = {};
  lstat(Path(path).c_str(), &stat);
  return stat.st_mode & 07777;
}

void HostTree::Chmod(const std::string& path, uint32_t mode) const {
  if (chmod(Path(path).c_str(), mode) != 0) abort();
}

void HostTree::Rename(const std::string& from, const std::string& to) const {
  std::filesystem::rename(Path(from), Path(to));
}

FuseClient::FuseClient(const ShareConfig& config, bool init)
    : driver_(std::make_unique<virtio::fake::FakeDriver>(Maker(config))) {
  driver_->Start();
  out_ = driver_->Allocate(kBufferSize);
  in_ = driver_->Allocate(kBufferSize);
  if (init && Init().error != 0) abort();
}

uint64_t FuseClient::Metric(const std::string& name) {
  uint64_t result = 0;
  device().Metrics([&](const char* counter, uint64_t value) {
    if (name == counter) result = value;
  });
  return result;
}

std::vector<uint8_t> FuseClient::Request(uint32_t opcode, uint64_t node,
                                         std::span<const uint8_t> arguments) {
  fuse_in_header header = {};
  header.len = static_cast<uint32_t>(sizeof header + arguments.size());
  header.opcode = opcode;
  header.unique = kUnique;
  header.nodeid = node;
  std::vector<uint8_t> bytes = Pack(header);
  bytes.insert(bytes.end(), arguments.begin(), arguments.end());
  return bytes;
}

Answer FuseClient::Call(uint32_t opcode, uint64_t node, std::span<const uint8_t> arguments,
                        uint32_t room, uint32_t queue) {
  auto header_size = static_cast<uint32_t>(sizeof(fuse_out_header));
  std::vector<uint8_t> request = Request(opcode, node, arguments);
  if (request.size() > kBufferSize || header_size + room > kBufferSize) abort();
  std::ranges::copy(request, driver_->Memory(out_, request.size()).begin());
  driver_->Add(queue, {{out_, static_cast<uint32_t>(request.size()), false},
                       {in_, header_size + room, true}});
  driver_->Kick(queue);
  auto used = driver_->WaitUsed(queue);
  Answer answer;
  if (!used || used->written < header_size) return answer;
  std::span<uint8_t> memory = driver_->Memory(in_, header_size + room);
  fuse_out_header header;
  memcpy(&header, memory.data(), sizeof header);
  if (header.unique != kUnique || header.len != used->written) return answer;
  answer.replied = true;
  answer.error = -header.error;
  answer.payload.assign(memory.begin() + header_size, memory.begin() + header.len);
  return answer;
}

Answer FuseClient::Init(uint32_t major, uint32_t minor, uint32_t flags) {
  fuse_init_in in = {};
  in.major = major;
  in.minor = minor;
  in.max_readahead = 1 << 30;
  in.flags = flags;
  return Do(FUSE_INIT, 0, in);
}

uint64_t FuseClient::Walk(const std::string& path) {
  uint64_t node = kRootNode;
  for (const std::filesystem::path& name : std::filesystem::path(path)) {
    node = Lookup(node, name.string()).As<fuse_entry_out>().nodeid;
  }
  return node;
}

Answer FuseClient::Open(uint64_t node, uint32_t flags) {
  fuse_open_in in = {};
  in.flags = flags;
  return Do(FUSE_OPEN, node, in);
}

Answer FuseClient::Read(uint64_t node, uint64_t handle, uint64_t offset, uint32_t size) {
  fuse_read_in in = {};
  in.fh = handle;
  in.offset = offset;
  in.size = size;
  return Call(FUSE_READ, node, Pack(in), size);
}

Answer FuseClient::Write(uint64_t node, uint64_t handle, uint64_t offset, std::string_view data) {
  fuse_write_in in = {};
  in.fh = handle;
  in.offset = offset;
  in.size = static_cast<uint32_t>(data.size());
  std::vector<uint8_t> arguments = Pack(in);
  arguments.insert(arguments.end(), data.begin(), data.end());
  return Call(FUSE_WRITE, node, arguments);
}

Answer FuseClient::Release(uint64_t node, uint64_t handle) {
  fuse_release_in in = {};
  in.fh = handle;
  return Do(FUSE_RELEASE, node, in);
}

Answer FuseClient::Create(uint64_t parent, const std::string& name, uint32_t flags, uint32_t mode) {
  fuse_create_in in = {};
  in.flags = flags;
  in.mode = mode;
  return Do(FUSE_CREATE, parent, in, name);
}

Answer FuseClient::Mkdir(uint64_t parent, const std::string& name, uint32_t mode) {
  fuse_mkdir_in in = {};
  in.mode = mode;
  return Do(FUSE_MKDIR, parent, in, name);
}

Answer FuseClient::Rename(uint64_t from, const std::string& old_name, uint64_t to,
                          const std::string& new_name, uint32_t flags) {
  fuse_rename2_in in = {};
  in.newdir = to;
  in.flags = flags;
  return Do(FUSE_RENAME2, from, in, old_name, new_name);
}

void FuseClient::Forget(uint64_t node, uint64_t lookups) {
  Call(FUSE_FORGET, node, Pack(fuse_forget_in{lookups}), 0, kHighPriorityQueue);
}

std::vector<DirectoryEntry> FuseClient::List(uint64_t node, bool plus, uint32_t size) {
  std::vector<DirectoryEntry> all;
  uint64_t handle = Do(FUSE_OPENDIR, node, fuse_open_in{}).As<fuse_open_out>().fh;
  fuse_read_in in = {};
  in.fh = handle;
  in.size = size;
  while (true) {
    Answer answer = Call(plus ? FUSE_READDIRPLUS : FUSE_READDIR, node, Pack(in), size);
    if (answer.error != 0 || answer.payload.empty()) break;
    for (size_t at = 0; at < answer.payload.size();) {
      DirectoryEntry entry = {};
      if (plus) {
        entry.node = answer.As<fuse_entry_out>(at).nodeid;
        at += sizeof(fuse_entry_out);
      }
      struct {
        uint64_t ino;
        uint64_t off;
        uint32_t namelen;
        uint32_t type;
      } raw = answer.As<decltype(raw)>(at);
      if (at + sizeof raw + raw.namelen > answer.payload.size()) abort();
      entry.name.assign(reinterpret_cast<char*>(&answer.payload[at + sizeof raw]), raw.namelen);
      entry.offset = in.offset = raw.off;
      entry.type = raw.type;
      entry.inode = raw.ino;
      all.push_back(entry);
      at += FUSE_REC_ALIGN(sizeof raw + raw.namelen);
    }
  }
  fuse_release_in release = {};
  release.fh = handle;
  Do(FUSE_RELEASEDIR, node, release);
  return all;
}

Status FuseClient::SaveAndRestore(const ShareConfig& config) {
  return driver_->SaveAndRestore(Maker(config));
}

}  // namespace cube::devices::fs::testing
