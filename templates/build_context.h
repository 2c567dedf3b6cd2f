#ifndef CUBE_TEMPLATES_BUILD_CONTEXT_H_
#define CUBE_TEMPLATES_BUILD_CONTEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/file_stream.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "templates/ignore_rules.h"

namespace cube::templates {

// One file on its way from the build context, or from the build itself, into a guest.
struct CopyEntry {
  file_stream::Kind kind;
  std::string path;     // in the guest, from the root
  std::string name;     // of it in `path`, should that be a folder there
  uint32_t mode;        // or file_stream::kKeepMode
  std::string owner;    // USER[:GROUP]; "": root
  std::string source;   // in the context; "": `content` is it
  std::string content;  // of a link its target
  std::string digest;   // of what is in `source`
};

// The folder that COPY reads from, and nothing outside of it: links that lead out of it are refused
// (openat2(2), RESOLVE_BENEATH).
class BuildContext {
 public:
  static constexpr size_t kMaxEntries = 1'000'000;

  // With the rules of its .dockerignore, if there is one.
  static Result<BuildContext> Open(const std::string& path);

  struct Request {
    std::vector<std::string> sources;  // paths in the context, with '*', '?' and [...]
    std::string destination;  // in the guest, from the root; a folder if it ends with a '/'
    std::string owner;
    std::string mode;  // octal, of every file and folder; "": as it is
  };
  // What a COPY copies, in an order that is always the same. Errors name the source.
  Result<std::vector<CopyEntry>> Resolve(const Request& request) const;

  // A file's, which Resolve() found, for reading.
  Result<UniqueFd> OpenSource(const std::string& path) const;

 private:
  explicit BuildContext(UniqueFd folder) : folder_(std::move(folder)) {}

  Result<UniqueFd> OpenBeneath(const std::string& path, int flags) const;
  // True if neither it nor anything in it is to be seen.
  bool IsHidden(const std::string& path) const;
  Result<std::vector<std::string>> Expand(const std::string& pattern) const;
  Status AddFile(const std::string& source, const std::string& path, const std::string& name,
                 const Request& request, std::vector<CopyEntry>* entries) const;
  Status AddFolder(const std::string& source, const std::string& path, const Request& request,
                   bool own_mode, int depth, std::vector<CopyEntry>* entries) const;
  Status Add(const std::string& source, bool into_folder, const Request& request,
             std::vector<CopyEntry>* entries) const;

  UniqueFd folder_;
  IgnoreRules ignore_;
};

// What tells these entries from others: their names, modes and contents.
std::string DigestOf(const std::vector<CopyEntry>& entries);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_BUILD_CONTEXT_H_
