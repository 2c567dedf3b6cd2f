#ifndef CUBE_DEVICES_FS_FUSE_SERVER_H_
#define CUBE_DEVICES_FS_FUSE_SERVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/state_io.h"
#include "devices/fs/fuse_request.h"
#include "devices/fs/handle_table.h"
#include "devices/fs/host_identity.h"
#include "devices/fs/inode_table.h"
#include "devices/fs/limits.h"

namespace cube::devices::fs {

// A directory of the host's as a guest gets to see it.
struct ShareConfig {
  std::string directory;  // empty: the device is given one later, or none
  std::string tag;
  bool read_only = false;
  // The host's user as whom files are accessed; if not given the directory's owner.
  std::optional<uint32_t> host_uid;
  std::optional<uint32_t> host_gid;
  // The guest's user to whom the files of that one belong; all others' are nobody's, as in a user
  // namespace with one user. 1000 is the first ordinary user of a guest; root needs no mapping to
  // be allowed everything.
  uint32_t guest_uid = 1000;
  uint32_t guest_gid = 1000;
  Limits limits = {};
};

// Serves the requests of FUSE on one directory of the host's, one at a time, each to its end. The
// session starts with the guest's INIT.
class FuseServer {
 public:
  // What serving has come to, for counters.
  struct Counts {
    uint64_t requests = 0;
    uint64_t errors = 0;     // replied to with one
    uint64_t malformed = 0;  // could not be replied to
    uint64_t bytes_read = 0;
    uint64_t bytes_written = 0;
  };

  // Errors name the directory.
  static Result<std::unique_ptr<FuseServer>> Create(const ShareConfig& config);
  // Of a directory that is open, if only as a path (O_PATH). `config` says the rest; its tag is
  // named in errors.
  static Result<std::unique_ptr<FuseServer>> Over(const ShareConfig& config, UniqueFd root);
  // Replies EIO to the request of a chain, where there is nothing to serve it from.
  static uint32_t Refuse(const virtio::DescriptorChain& chain);

  const HostIdentity& identity() const { return identity_; }

  // Serves the request of a chain; how many bytes of its writable part were written. In a Scope of
  // identity(), as Load().
  uint32_t Serve(const virtio::DescriptorChain& chain);
  // Ends the session: the guest knows of nothing any more.
  void Reset();

  const Counts& counts() const { return counts_; }
  size_t inodes() const { return inodes_.size(); }
  size_t handles() const { return handles_.size(); }

  // ---- saved state (saved_state.cc)

  void Save(StateWriter* state);
  Status Load(StateReader* state);

 private:
  FuseServer(const ShareConfig& config, HostIdentity identity, InodeTable inodes)
      : config_(config),
        identity_(std::move(identity)),
        inodes_(std::move(inodes)),
        handles_(config.limits.handles) {}

  using Handler = int (FuseServer::*)(FuseRequest&, FuseReply&);
  struct Operation {
    Handler handler;
    uint32_t reply_size;  // that there must be room for
    bool changes;         // refused on a share that is read-only
  };
  static const Operation* FindOperation(uint32_t opcode);
  int Dispatch(FuseRequest& request, FuseReply& reply);

  // Each serves one kind of request: 0 or an errno value.
  // session
  int Init(FuseRequest&, FuseReply&);
  int Destroy(FuseRequest&, FuseReply&);
  int Forget(FuseRequest&, FuseReply&);
  int BatchForget(FuseRequest&, FuseReply&);
  int Interrupt(FuseRequest&, FuseReply&);
  // names (name_operations.cc)
  int Lookup(FuseRequest&, FuseReply&);
  int Create(FuseRequest&, FuseReply&);
  int MakeDirectory(FuseRequest&, FuseReply&);
  int MakeNode(FuseRequest&, FuseReply&);
  int Unlink(FuseRequest&, FuseReply&);
  int RemoveDirectory(FuseRequest&, FuseReply&);
  int Rename(FuseRequest&, FuseReply&);
  int Rename2(FuseRequest&, FuseReply&);
  int SymbolicLink(FuseRequest&, FuseReply&);
  int ReadLink(FuseRequest&, FuseReply&);
  int Link(FuseRequest&, FuseReply&);
  // files (file_operations.cc)
  int Open(FuseRequest&, FuseReply&);
  int Read(FuseRequest&, FuseReply&);
  int Write(FuseRequest&, FuseReply&);
  int Release(FuseRequest&, FuseReply&);
  int Flush(FuseRequest&, FuseReply&);
  int Sync(FuseRequest&, FuseReply&);
  int Allocate(FuseRequest&, FuseReply&);
  int Seek(FuseRequest&, FuseReply&);
  int CopyRange(FuseRequest&, FuseReply&);
  // directories (directory_operations.cc)
  int OpenDir(FuseRequest&, FuseReply&);
  int ReadDir(FuseRequest&, FuseReply&);
  int ReadDirPlus(FuseRequest&, FuseReply&);
  int ReleaseDir(FuseRequest&, FuseReply&);
  int SyncDir(FuseRequest&, FuseReply&);
  // attributes (attribute_operations.cc)
  int GetAttributes(FuseRequest&, FuseReply&);
  int SetAttributes(FuseRequest&, FuseReply&);
  int Access(FuseRequest&, FuseReply&);
  int FileSystemStatus(FuseRequest&, FuseReply&);
  int GetXattr(FuseRequest&, FuseReply&);
  int SetXattr(FuseRequest&, FuseReply&);
  int ListXattr(FuseRequest&, FuseReply&);
  int RemoveXattr(FuseRequest&, FuseReply&);

  // The inode of a node, and its descriptor.
  int ReachNode(NodeId node, Inode** inode, int* fd);
  // The same of a directory.
  int ReachDirectory(NodeId node, int* fd);
  // Looks a name up and appends what it is.
  int ReplyEntry(int dir, const std::string& name, FuseReply& reply);
  fuse_entry_out Entry(const Inode& inode, const struct statx& stat) const;
  fuse_attr Attributes(NodeId node, const struct statx& stat) const;
  // open(2)'s flags of those the guest asks with.
  int HostFlags(uint32_t guest_flags, int* flags) const;
  int AddHandle(Inode* inode, UniqueFd fd, uint32_t flags, FuseReply& reply);
  int ReleaseHandle(FuseRequest& request, bool directory);
  int RenameTo(FuseRequest& request, NodeId new_parent, uint32_t flags);
  int ReadEntries(FuseRequest& request, FuseReply& reply, bool plus);
  bool PutEntry(int dir, const char* name, uint8_t type, uint64_t number, int64_t next,
                uint32_t left, bool plus, FuseReply& reply);
  int SyncHandle(FuseRequest& request, bool directory);
  int SetTimes(const fuse_setattr_in& in, int fd);
  int SetSize(const fuse_setattr_in& in, int fd);

  ShareConfig config_;
  HostIdentity identity_;
  InodeTable inodes_;
  HandleTable handles_;
  bool initialized_ = false;
  Counts counts_;
  std::vector<iovec> iovecs_;
};

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_FUSE_SERVER_H_
