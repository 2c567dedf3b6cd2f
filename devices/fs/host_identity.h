#ifndef CUBE_DEVICES_FS_HOST_IDENTITY_H_
#define CUBE_DEVICES_FS_HOST_IDENTITY_H_

#include <sys/types.h>

#include <optional>
#include <vector>

#include "base/result.h"

namespace cube::devices::fs {

// The host user and group as whom a share's files are accessed and created. Where the process is
// root it takes them on for file access only (setfsuid(2)), which takes its power over files away
// with them; else it can only be who it is.
class HostIdentity {
 public:
  // `wanted` values were asked for: an error if they cannot be had. Otherwise the `owner`'s if that
  // is possible, else the process's own.
  static Result<HostIdentity> Create(std::optional<uid_t> wanted_uid,
                                     std::optional<gid_t> wanted_gid, uid_t owner_uid,
                                     gid_t owner_gid);

  uid_t uid() const { return uid_; }
  gid_t gid() const { return gid_; }
  // Whether the kernel would let it write to set-user-ID files and leave them that (CAP_FSETID).
  bool keeps_privileges() const { return uid_ == 0; }

  // While it lives this thread accesses files as the identity. The umask, which the whole process
  // has in common, is 0, for the guest's kernel has applied its program's: no other thread of the
  // process creates files.
  class Scope {
   public:
    explicit Scope(const HostIdentity& identity);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    const HostIdentity& identity_;
    mode_t umask_;
  };

 private:
  HostIdentity() = default;

  uid_t uid_ = 0;
  gid_t gid_ = 0;
  bool switches_ = false;
  // To go back to.
  uid_t own_uid_ = 0;
  gid_t own_gid_ = 0;
  std::vector<gid_t> own_groups_;
};

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_HOST_IDENTITY_H_
