#include "templates/build_context.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/byte_io.h"
#include "templates/digest.h"
#include "templates/tree.h"

namespace cube::templates {
namespace {

using file_stream::Kind;

constexpr int kMaxDepth = 200;

uint32_t ModeOf(const std::string& octal, const struct stat& info) {
  return octal.empty() ? info.st_mode & 07777
                       : static_cast<uint32_t>(strtoul(octal.c_str(), nullptr, 8));
}

std::string Join(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder.back() == '/' ? folder + name : folder + "/" + name;
}

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

bool IsPattern(const std::string& text) { return text.find_first_of("*?[") != std::string::npos; }

}  // namespace

Result<BuildContext> BuildContext::Open(const std::string& path) {
  CUBE_ASSIGN(UniqueFd folder, OpenFile(path, O_RDONLY | O_DIRECTORY));
  BuildContext context(std::move(folder));
  auto rules = context.OpenBeneath(".dockerignore", O_RDONLY);
  if (!rules.ok()) return context;
  CUBE_ASSIGN(uint64_t size, RegularFileSize(rules->get(), ".dockerignore"));
  if (size > IgnoreRules::kMaxSize) return Errorf("%s/.dockerignore is too large", path.c_str());
  std::string text(size, '\0');
  CUBE_TRY(ReadExactAt(rules->get(), {reinterpret_cast<uint8_t*>(text.data()), text.size()}, 0,
                       ".dockerignore"));
  auto parsed = IgnoreRules::Parse(text);
  if (!parsed.ok()) return Error(parsed.error()).Wrap(path + "/.dockerignore");
  context.ignore_ = std::move(*parsed);
  return context;
}

Result<UniqueFd> BuildContext::OpenBeneath(const std::string& path, int flags) const {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  // Without waiting for who might write to a FIFO.
  if ((flags & O_PATH) == 0) how.flags |= O_NONBLOCK | O_NOCTTY;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  long fd;
  do {  // EAGAIN: something was renamed meanwhile
    fd = syscall(SYS_openat2, folder_.get(), path.empty() ? "." : path.c_str(), &how, sizeof how);
  } while (fd < 0 && errno == EAGAIN);
  if (fd >= 0) return UniqueFd(static_cast<int>(fd));
  if (errno == EXDEV) return Errorf("\"%s\" leads out of the build context", path.c_str());
  return ErrnoError("\"%s\" in the build context", path.c_str());
}

Result<UniqueFd> BuildContext::OpenSource(const std::string& path) const {
  return OpenBeneath(path, O_RDONLY);
}

// Folder by folder: the names in it that match.
Result<std::vector<std::string>> BuildContext::Expand(const std::string& pattern) const {
  std::vector<std::string> found = {""};
  std::string rest = pattern;
  while (!rest.empty()) {
    size_t end = std::min(rest.find('/'), rest.size());
    const std::string part = rest.substr(0, end);
    rest.erase(0, end + 1);
    std::vector<std::string> next;
    for (const std::string& folder : found) {
      if (!IsPattern(part)) {
        next.push_back(Join(folder, part));
        continue;
      }
      auto opened = OpenBeneath(folder, O_RDONLY | O_DIRECTORY);
      if (!opened.ok()) continue;
      CUBE_ASSIGN(std::vector<std::string> names, NamesIn(opened->get()));
      std::sort(names.begin(), names.end());
      for (const std::string& name : names) {
        std::string path = Join(folder, name);
        if (fnmatch(part.c_str(), name.c_str(), 0) == 0) next.push_back(std::move(path));
      }
    }
    found = std::move(next);
    if (found.size() > kMaxEntries) return Errorf("\"%s\" matches too much", pattern.c_str());
  }
  return found;
}

bool BuildContext::IsHidden(const std::string& path) const {
  if (path.empty() || !ignore_.Ignores(path)) return false;
  if (ignore_.final()) return true;
  auto opened = OpenBeneath(path, O_PATH);
  struct stat info;
  return opened.ok() && fstat(opened->get(), &info) == 0 && !S_ISDIR(info.st_mode);
}

Status BuildContext::AddFile(const std::string& source, const std::string& path,
                             const std::string& name, const Request& request,
                             std::vector<CopyEntry>* entries) const {
  CUBE_ASSIGN(UniqueFd file, OpenBeneath(source, O_RDONLY));
  struct stat info;
  if (fstat(file.get(), &info) < 0) return ErrnoError("\"%s\"", source.c_str());
  if (!S_ISREG(info.st_mode)) {
    return Errorf("\"%s\" is neither a file nor a folder nor a link", source.c_str());
  }
  CopyEntry entry = {Kind::kFile, path, name, ModeOf(request.mode, info), request.owner, source};
  CUBE_ASSIGN(entry.digest, FileSha256(file.get(), source));
  entries->push_back(std::move(entry));
  return OkStatus();
}

Status BuildContext::AddFolder(const std::string& source, const std::string& path,
                               const Request& request, bool own_mode, int depth,
                               std::vector<CopyEntry>* entries) const {
  if (depth > kMaxDepth) return Errorf("folders are more than %d deep", kMaxDepth);
  CUBE_ASSIGN(UniqueFd folder, OpenBeneath(source, O_RDONLY | O_DIRECTORY));
  struct stat info;
  if (fstat(folder.get(), &info) < 0) return ErrnoError("\"%s\"", source.c_str());
  if (source.empty() || !ignore_.Ignores(source)) {
    entries->push_back({Kind::kFolder, path, "",
                        own_mode ? ModeOf(request.mode, info) : file_stream::kKeepMode,
                        request.owner});
  }
  CUBE_ASSIGN(std::vector<std::string> names, NamesIn(folder.get()));
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    const std::string inner = Join(source, name);
    const std::string to = Join(path, name);
    const bool ignored = ignore_.Ignores(inner);
    if (entries->size() > kMaxEntries) return Errorf("more than %zu files", kMaxEntries);
    if (fstatat(folder.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) {
      return ErrnoError("\"%s\"", inner.c_str());
    }
    if (S_ISDIR(info.st_mode)) {
      if (ignored && ignore_.final()) continue;
      CUBE_TRY(AddFolder(inner, to, request, true, depth + 1, entries));
    } else if (ignored) {
      continue;
    } else if (S_ISLNK(info.st_mode)) {
      std::string target(file_stream::kMaxPath + 1, '\0');
      ssize_t size = readlinkat(folder.get(), name.c_str(), target.data(), target.size());
      if (size <= 0 || size > file_stream::kMaxPath) return ErrnoError("\"%s\"", inner.c_str());
      target.resize(static_cast<size_t>(size));
      entries->push_back({Kind::kLink, to, "", 0777, request.owner, "", std::move(target)});
    } else {
      CUBE_TRY(AddFile(inner, to, "", request, entries));
    }
  }
  return OkStatus();
}

Status BuildContext::Add(const std::string& source, bool into_folder, const Request& request,
                         std::vector<CopyEntry>* entries) const {
  CUBE_ASSIGN(UniqueFd opened, OpenBeneath(source, O_PATH));
  struct stat info;
  if (fstat(opened.get(), &info) < 0) return ErrnoError("\"%s\"", source.c_str());
  // Of a folder the content is copied, not the folder.
  if (S_ISDIR(info.st_mode)) {
    return AddFolder(source, request.destination, request, false, 0, entries);
  }
  if (!into_folder) {
    return AddFile(source, request.destination, BaseName(source), request, entries);
  }
  return AddFile(source, Join(request.destination, BaseName(source)), "", request, entries);
}

Result<std::vector<CopyEntry>> BuildContext::Resolve(const Request& request) const {
  std::vector<std::string> found;
  for (const std::string& source : request.sources) {
    CUBE_ASSIGN(std::string pattern, Tree::Normalize(source));
    CUBE_ASSIGN(std::vector<std::string> matches, Expand(pattern));
    std::erase_if(matches, [this](const std::string& path) { return IsHidden(path); });
    if (matches.empty()) {
      return Errorf("nothing in the build context is \"%s\", or it is ignored", source.c_str());
    }
    found.insert(found.end(), matches.begin(), matches.end());
  }
  const bool into_folder = request.destination.ends_with('/');
  if (found.size() > 1 && !into_folder) {
    return Errorf("%zu sources need a destination that ends with a '/'", found.size());
  }
  std::vector<CopyEntry> entries;
  for (const std::string& source : found) CUBE_TRY(Add(source, into_folder, request, &entries));
  return entries;
}

std::string DigestOf(const std::vector<CopyEntry>& entries) {
  Sha256 sum;
  for (const CopyEntry& entry : entries) {
    sum.AddField(Format("%u %o", static_cast<unsigned>(entry.kind), entry.mode));
    for (const std::string* field :
         {&entry.path, &entry.name, &entry.owner, &entry.content, &entry.digest}) {
      sum.AddField(*field);
    }
  }
  return sum.Finish();
}

}  // namespace cube::templates
