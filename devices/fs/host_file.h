#ifndef CUBE_DEVICES_FS_HOST_FILE_H_
#define CUBE_DEVICES_FS_HOST_FILE_H_

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/unique_fd.h"

// The host's files as a share needs them: nothing here follows a symbolic link or leaves the
// directory it is given. Functions return 0 or an errno value, which is what the guest is told; no
// text is made for an error of which a guest can cause millions.
namespace cube::devices::fs {

// Leaves the function with the errno value of `expr` unless that is 0.
#define CUBE_FS_TRY(expr)                                                     \
  do {                                                                        \
    if (int cube_fs_error = (expr); cube_fs_error != 0) return cube_fs_error; \
  } while (0)

// The file behind all names it may have. The time of birth tells it from a later one that has been
// given the same inode number; 0 on file systems that do not keep it.
struct FileId {
  uint64_t device;
  uint64_t inode;
  uint64_t birth;  // nanoseconds
  bool operator==(const FileId&) const = default;
};
struct FileIdHash {
  size_t operator()(const FileId& id) const {
    return id.inode * 0x9e3779b97f4a7c15 ^ id.device << 32 ^ id.birth;
  }
};
FileId IdOf(const struct statx& stat);

// errno, with what a process and a system run out of made one: ENFILE.
int HostError();

// What a guest may call a file within a directory: 1 to 255 bytes, no '/', neither "." nor "..".
// EINVAL or ENAMETOOLONG if it is none. It has no NUL bytes, being a C string.
int CheckName(const std::string& name);

int StatFile(int fd, struct statx* stat);

// An O_PATH descriptor of what `path`, relative to `dir`, leads to without leaving `dir` and
// without passing a symbolic link; that itself may be one. It grants no access to content, and
// getting it has no effect on a device or FIFO.
int OpenPath(int dir, const char* path, UniqueFd* out);

// Creates a regular file: EEXIST if the name is taken, by whatever. `flags` are open(2)'s.
int CreateFile(int dir, const char* name, int flags, mode_t mode, UniqueFd* out);

// Opens the regular file of an O_PATH descriptor for access to its content. Whatever else it is is
// not opened: EISDIR, ELOOP, or ENXIO for devices, FIFOs and sockets.
int OpenRegular(int path_fd, int flags, UniqueFd* out);
int OpenDirectory(int path_fd, UniqueFd* out);
// An O_PATH descriptor of an open file.
int PathFdOf(int fd, UniqueFd* out);

// The name by which system calls without an O_PATH form reach the file of a descriptor of ours. The
// kernel goes straight to the file; there is no path that could be changed.
class ProcPath {
 public:
  explicit ProcPath(int fd);
  const char* c_str() const { return text_; }

 private:
  char text_[32];
};

// Where the file of a descriptor is, as the kernel knows it now, with " (deleted)" behind it if it
// is nowhere any more. ENAMETOOLONG if that is longer than PATH_MAX.
int PathOf(int fd, std::string* out);

// Clears the set-user-ID and set-group-ID bits that the kernel clears when a file is written to by
// who is not privileged (inode(7)).
int ClearPrivileges(int fd);

}  // namespace cube::devices::fs

#endif  // CUBE_DEVICES_FS_HOST_FILE_H_
