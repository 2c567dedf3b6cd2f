#include "devices/fs/fuse_server.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "devices/fs/spec.h"

namespace cube::devices::fs {
namespace {

// How long the guest may believe what it was told of names and attributes, while the host may
// change both.
constexpr uint64_t kValidSeconds = 1;

constexpr uint32_t kNobody = 65534;

// Offered at INIT. Not among them, and so done by the guest's kernel for itself: locks, access
// control lists (permissions are checked by mode). Not FUSE_WRITEBACK_CACHE: what the guest has
// written is seen on the host at once.
constexpr uint32_t kSessionFlags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES |
                                   FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |
                                   FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                                   FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_HANDLE_KILLPRIV_V2;

// Requests the guest keeps under way before it waits.
constexpr uint16_t kMaxBackground = 64;

}  // namespace

Result<std::unique_ptr<FuseServer>> FuseServer::Create(const ShareConfig& config) {
  const char* directory = config.directory.c_str();
  UniqueFd root(open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root.valid()) return ErrnoError("%s", directory);
  return Over(config, std::move(root));
}

Result<std::unique_ptr<FuseServer>> FuseServer::Over(const ShareConfig& config, UniqueFd root) {
  const std::string& name = config.directory.empty() ? config.tag : config.directory;
  struct statx stat;
  errno = StatFile(root.get(), &stat);
  if (errno == 0 && !S_ISDIR(stat.stx_mode)) errno = ENOTDIR;
  if (errno != 0) return ErrnoError("%s", name.c_str());
  auto identity =
      HostIdentity::Create(config.host_uid, config.host_gid, stat.stx_uid, stat.stx_gid);
  if (!identity.ok()) return Error(identity.error()).Wrap(name);
  auto inodes = InodeTable::Create(std::move(root), config.limits);
  if (!inodes.ok()) return Error(inodes.error()).Wrap(name);
  return std::unique_ptr<FuseServer>(
      new FuseServer(config, std::move(*identity), std::move(*inodes)));
}

const FuseServer::Operation* FuseServer::FindOperation(uint32_t opcode) {
  constexpr uint32_t kEntry = sizeof(fuse_entry_out);
  constexpr uint32_t kAttributes = sizeof(fuse_attr_out);
  constexpr uint32_t kOpen = sizeof(fuse_open_out);
  static constexpr auto kOperations = [] {
    std::array<Operation, FUSE_TMPFILE + 1> all = {};
    all[FUSE_INIT] = {&FuseServer::Init, sizeof(fuse_init_out), false};
    all[FUSE_DESTROY] = {&FuseServer::Destroy, 0, false};
    all[FUSE_FORGET] = {&FuseServer::Forget, 0, false};
    all[FUSE_BATCH_FORGET] = {&FuseServer::BatchForget, 0, false};
    all[FUSE_INTERRUPT] = {&FuseServer::Interrupt, 0, false};
    all[FUSE_LOOKUP] = {&FuseServer::Lookup, kEntry, false};
    all[FUSE_CREATE] = {&FuseServer::Create, kEntry + kOpen, true};
    all[FUSE_MKDIR] = {&FuseServer::MakeDirectory, kEntry, true};
    all[FUSE_MKNOD] = {&FuseServer::MakeNode, kEntry, true};
    all[FUSE_UNLINK] = {&FuseServer::Unlink, 0, true};
    all[FUSE_RMDIR] = {&FuseServer::RemoveDirectory, 0, true};
    all[FUSE_RENAME] = {&FuseServer::Rename, 0, true};
    all[FUSE_RENAME2] = {&FuseServer::Rename2, 0, true};
    all[FUSE_SYMLINK] = {&FuseServer::SymbolicLink, kEntry, true};
    all[FUSE_READLINK] = {&FuseServer::ReadLink, 1, false};
    all[FUSE_LINK] = {&FuseServer::Link, kEntry, true};
    all[FUSE_OPEN] = {&FuseServer::Open, kOpen, false};
    all[FUSE_READ] = {&FuseServer::Read, 0, false};
    all[FUSE_WRITE] = {&FuseServer::Write, sizeof(fuse_write_out), true};
    all[FUSE_RELEASE] = {&FuseServer::Release, 0, false};
    all[FUSE_FLUSH] = {&FuseServer::Flush, 0, false};
    all[FUSE_FSYNC] = {&FuseServer::Sync, 0, false};
    all[FUSE_FALLOCATE] = {&FuseServer::Allocate, 0, true};
    all[FUSE_LSEEK] = {&FuseServer::Seek, sizeof(fuse_lseek_out), false};
    all[FUSE_COPY_FILE_RANGE] = {&FuseServer::CopyRange, sizeof(fuse_write_out), true};
    all[FUSE_OPENDIR] = {&FuseServer::OpenDir, kOpen, false};
    all[FUSE_READDIR] = {&FuseServer::ReadDir, 0, false};
    all[FUSE_READDIRPLUS] = {&FuseServer::ReadDirPlus, 0, false};
    all[FUSE_RELEASEDIR] = {&FuseServer::ReleaseDir, 0, false};
    all[FUSE_FSYNCDIR] = {&FuseServer::SyncDir, 0, false};
    all[FUSE_GETATTR] = {&FuseServer::GetAttributes, kAttributes, false};
    all[FUSE_SETATTR] = {&FuseServer::SetAttributes, kAttributes, true};
    all[FUSE_ACCESS] = {&FuseServer::Access, 0, false};
    all[FUSE_STATFS] = {&FuseServer::FileSystemStatus, sizeof(fuse_statfs_out), false};
    all[FUSE_GETXATTR] = {&FuseServer::GetXattr, sizeof(fuse_getxattr_out), false};
    all[FUSE_SETXATTR] = {&FuseServer::SetXattr, 0, true};
    all[FUSE_LISTXATTR] = {&FuseServer::ListXattr, sizeof(fuse_getxattr_out), false};
    all[FUSE_REMOVEXATTR] = {&FuseServer::RemoveXattr, 0, true};
    return all;
  }();
  if (opcode >= kOperations.size() || kOperations[opcode].handler == nullptr) return nullptr;
  return &kOperations[opcode];
}

uint32_t FuseServer::Refuse(const virtio::DescriptorChain& chain) {
  std::optional<FuseRequest> request = FuseRequest::Parse(chain);
  if (!request) return 0;
  FuseReply reply(chain, request->header().unique);
  const uint32_t opcode = request->header().opcode;
  if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT) {
    reply.Withhold();
  }
  return reply.Finish(EIO);
}

uint32_t FuseServer::Serve(const virtio::DescriptorChain& chain) {
  std::optional<FuseRequest> request = FuseRequest::Parse(chain);
  if (!request) {
    ++counts_.malformed;
    return 0;
  }
  ++counts_.requests;
  FuseReply reply(chain, request->header().unique);
  int error = Dispatch(*request, reply);
  uint32_t size = reply.Finish(error);
  if (error != 0) ++counts_.errors;
  if (size == 0 && !reply.withheld()) ++counts_.malformed;
  return size;
}

int FuseServer::Dispatch(FuseRequest& request, FuseReply& reply) {
  const Operation* operation = FindOperation(request.header().opcode);
  if (operation == nullptr) return ENOSYS;
  if (!initialized_ && request.header().opcode != FUSE_INIT) return EIO;
  if (operation->changes && config_.read_only) return EROFS;
  // Looked at before anything is done that the guest could then not be told of.
  if (reply.room() < operation->reply_size) return EINVAL;
  return (this->*operation->handler)(request, reply);
}

void FuseServer::Reset() {
  handles_.Clear();
  inodes_.Clear();
  initialized_ = false;
}

// ---- the session

int FuseServer::Init(FuseRequest& request, FuseReply& reply) {
  // The first four fields; later versions have more.
  struct InitRequest {
    uint32_t major;
    uint32_t minor;
    uint32_t max_readahead;
    uint32_t flags;
  } in;
  CUBE_FS_TRY(request.Take(&in));
  fuse_init_out out = {};
  out.major = kFuseMajor;
  out.minor = kFuseMinor;
  if (in.major > kFuseMajor) {  // it will ask again, in our version
    reply.Put(out);
    return 0;
  }
  if (in.major < kFuseMajor || in.minor < kFuseMinorLeast) return EPROTO;
  // A kernel that starts anew has not said goodbye to the session it had.
  Reset();
  out.max_readahead = std::min(in.max_readahead, kMaxTransfer);
  out.flags = in.flags & kSessionFlags;
  out.max_background = kMaxBackground;
  out.congestion_threshold = kMaxBackground * 3 / 4;
  out.max_write = kMaxTransfer;
  out.max_pages = kMaxTransfer / kFusePageSize;
  out.time_gran = 1;
  initialized_ = true;
  reply.Put(out);
  return 0;
}

int FuseServer::Destroy(FuseRequest&, FuseReply&) {
  Reset();
  return 0;
}

int FuseServer::Forget(FuseRequest& request, FuseReply& reply) {
  reply.Withhold();
  fuse_forget_in in;
  CUBE_FS_TRY(request.Take(&in));
  inodes_.Forget(request.header().nodeid, in.nlookup);
  return 0;
}

int FuseServer::BatchForget(FuseRequest& request, FuseReply& reply) {
  reply.Withhold();
  fuse_batch_forget_in in;
  CUBE_FS_TRY(request.Take(&in));
  for (uint32_t i = 0; i < in.count; ++i) {
    fuse_forget_one one;
    CUBE_FS_TRY(request.Take(&one));
    inodes_.Forget(one.nodeid, one.nlookup);
  }
  return 0;
}

// A request is always served to its end before the next one is looked at.
int FuseServer::Interrupt(FuseRequest&, FuseReply& reply) {
  reply.Withhold();
  return 0;
}

// ---- what operations have in common

int FuseServer::ReachNode(NodeId node, Inode** inode, int* fd) {
  *inode = inodes_.Find(node);
  if (*inode == nullptr) return ESTALE;
  return inodes_.Reach(*inode, fd);
}

int FuseServer::ReachDirectory(NodeId node, int* fd) {
  Inode* inode;
  CUBE_FS_TRY(ReachNode(node, &inode, fd));
  return inode->type == S_IFDIR ? 0 : ENOTDIR;
}

int FuseServer::ReplyEntry(int dir, const std::string& name, FuseReply& reply) {
  Inode* inode;
  struct statx stat;
  CUBE_FS_TRY(inodes_.Lookup(dir, name, &inode, &stat));
  reply.Put(Entry(*inode, stat));
  return 0;
}

fuse_entry_out FuseServer::Entry(const Inode& inode, const struct statx& stat) const {
  fuse_entry_out entry = {};
  entry.nodeid = inode.node;
  entry.entry_valid = kValidSeconds;
  entry.attr_valid = kValidSeconds;
  entry.attr = Attributes(inode.node, stat);
  return entry;
}

fuse_attr FuseServer::Attributes(NodeId node, const struct statx& stat) const {
  fuse_attr attr = {};
  FileId id = IdOf(stat);
  // Of another file system that is mounted within the share the inode numbers may be the same.
  attr.ino = id.device == inodes_.root_device() ? stat.stx_ino : node | 1ull << 63;
  attr.size = stat.stx_size;
  attr.blocks = stat.stx_blocks;
  attr.atime = static_cast<uint64_t>(stat.stx_atime.tv_sec);
  attr.mtime = static_cast<uint64_t>(stat.stx_mtime.tv_sec);
  attr.ctime = static_cast<uint64_t>(stat.stx_ctime.tv_sec);
  attr.atimensec = stat.stx_atime.tv_nsec;
  attr.mtimensec = stat.stx_mtime.tv_nsec;
  attr.ctimensec = stat.stx_ctime.tv_nsec;
  attr.mode = stat.stx_mode;
  attr.nlink = stat.stx_nlink;
  attr.uid = stat.stx_uid == identity_.uid() ? config_.guest_uid : kNobody;
  attr.gid = stat.stx_gid == identity_.gid() ? config_.guest_gid : kNobody;
  // A device node of the host's names no device of the guest's: rdev stays 0.
  attr.blksize = stat.stx_blksize;
  return attr;
}

}  // namespace cube::devices::fs
