#ifndef CUBE_TEMPLATES_TREE_H_
#define CUBE_TEMPLATES_TREE_H_

#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::templates {

// A folder of this machine that holds another machine's files, whose names and links may be
// hostile. Paths are relative to it; "..", in a path or at its end, is refused; a symbolic link on
// the way is followed as if the folder were the root (openat2(2), RESOLVE_IN_ROOT), the last name
// never is. So nothing outside is read, made or deleted, whatever has been put inside.
class Tree {
 public:
  // `path` is a folder.
  static Result<Tree> Open(const std::string& path);

  // "./a//b/" as "a/b"; "" for the root itself. An error for ".." and for zero bytes, and for what
  // is longer than PATH_MAX.
  static Result<std::string> Normalize(std::string_view path);

  // A place for an entry: the folder above it and its name in there, which is one name.
  struct Place {
    UniqueFd folder;
    std::string name;
    int at() const { return folder.get(); }
    const char* c_str() const { return name.c_str(); }
  };
  // Of a normalized path that is not the root. With `make`, folders that are missing above it are
  // made, with mode 0755.
  Result<Place> Find(const std::string& path, bool make) const;

  // Opens the folder at a normalized path, following links within the tree. After a failure of this
  // or of Find(), errno says what kind of failure it was.
  Result<UniqueFd> OpenFolder(const std::string& path) const;
  // Opens the regular file at `path`, which may lead over links within the tree, for reading.
  Result<UniqueFd> OpenFileForReading(const std::string& path) const;

  // Makes a file of root's with this content, and the folders above it, in the place of what is
  // there.
  Status WriteFile(const std::string& path, std::string_view content, mode_t mode) const;
  // Makes a folder unless there is one.
  Status MakeFolder(const std::string& path, mode_t mode) const;

  // Deletes an entry with all that is in it; none is fine.
  static Status Remove(int folder, const std::string& name);

 private:
  explicit Tree(UniqueFd root) : root_(std::move(root)) {}

  Result<UniqueFd> OpenInside(const std::string& path, int flags) const;

  UniqueFd root_;
};

// The names in an open folder, but "." and "..".
Result<std::vector<std::string>> NamesIn(int folder);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_TREE_H_
