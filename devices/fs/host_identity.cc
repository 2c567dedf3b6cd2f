#include "devices/fs/host_identity.h"

#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace cube::devices::fs {
namespace {

// Of this thread alone; the C library's setgroups() changes all threads.
long SetThreadGroups(const std::vector<gid_t>& groups) {
  return syscall(SYS_setgroups, groups.size(), groups.data());
}

// The calls that tell the present value are those that set an impossible one.
uid_t FsUid() { return static_cast<uid_t>(setfsuid(static_cast<uid_t>(-1))); }
gid_t FsGid() { return static_cast<gid_t>(setfsgid(static_cast<gid_t>(-1))); }

}  // namespace

Result<HostIdentity> HostIdentity::Create(std::optional<uid_t> wanted_uid,
                                          std::optional<gid_t> wanted_gid, uid_t owner_uid,
                                          gid_t owner_gid) {
  HostIdentity identity;
  identity.own_uid_ = geteuid();
  identity.own_gid_ = getegid();
  bool root = identity.own_uid_ == 0;
  identity.uid_ = wanted_uid.value_or(root ? owner_uid : identity.own_uid_);
  identity.gid_ = wanted_gid.value_or(root ? owner_gid : identity.own_gid_);
  if (identity.uid_ == identity.own_uid_ && identity.gid_ == identity.own_gid_) return identity;
  if (!root) {
    return Errorf(
        "uid %u, gid %u: only root can access files as another than itself, uid %u, "
        "gid %u",
        identity.uid_, identity.gid_, identity.own_uid_, identity.own_gid_);
  }
  int count = getgroups(0, nullptr);
  if (count < 0) return ErrnoError("getgroups");
  identity.own_groups_.resize(static_cast<size_t>(count));
  if (getgroups(count, identity.own_groups_.data()) != count) return ErrnoError("getgroups");
  identity.switches_ = true;
  bool taken;
  {
    Scope scope(identity);
    taken = FsUid() == identity.uid_ && FsGid() == identity.gid_ && getgroups(0, nullptr) == 0;
  }
  if (!taken || FsUid() != identity.own_uid_) {
    return Errorf("uid %u, gid %u cannot be taken on: CAP_SETUID and CAP_SETGID are missing",
                  identity.uid_, identity.gid_);
  }
  return identity;
}

HostIdentity::Scope::Scope(const HostIdentity& identity) : identity_(identity), umask_(umask(0)) {
  if (!identity_.switches_) return;
  // Create() has seen that these work.
  (void)SetThreadGroups({});
  setfsgid(identity_.gid_);
  setfsuid(identity_.uid_);
}

HostIdentity::Scope::~Scope() {
  if (identity_.switches_) {
    setfsuid(identity_.own_uid_);
    setfsgid(identity_.own_gid_);
    (void)SetThreadGroups(identity_.own_groups_);
  }
  umask(umask_);
}

}  // namespace cube::devices::fs
