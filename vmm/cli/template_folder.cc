#include "vmm/cli/template_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/unique_fd.h"
#include "snapshot/snapshot_writer.h"
#include "vmm/cli/cube_home.h"

namespace cube::vmm {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxName = 64;

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '-' || c == '_';
}

// What of a hostile name can be shown on a terminal.
std::string Shown(const std::string& name) {
  std::string shown = name.substr(0, kMaxName);
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  return name.size() > kMaxName ? shown + "..." : shown;
}

// A snapshot that builds on the one with this id, or nothing.
std::optional<std::string> FindChild(const std::string& id) {
  for (const std::string& kind : VisibleFolders(CubeHome())) {
    std::string folder = CubeHome() + "/" + kind;
    for (const std::string& name : VisibleFolders(folder)) {
      auto manifest = snapshot::Manifest::Load(folder + "/" + name);
      if (manifest.ok() && manifest->parent == id) return folder + "/" + name;
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<std::string> VisibleFolders(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code failed;
  for (fs::directory_iterator entry(folder, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    std::error_code ignored;
    std::string name = entry->path().filename();
    if (!name.starts_with('.') && entry->is_directory(ignored) && !entry->is_symlink(ignored)) {
      names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string TemplatesFolder() { return CubeHome() + "/templates"; }

Status CheckTemplateName(const std::string& name) {
  if (name.empty() || name.size() > kMaxName) {
    return Errorf("a template's name has 1 to %zu characters, not %zu", kMaxName, name.size());
  }
  if (name[0] == '.' || name[0] == '-' || name[0] == '_' ||
      !std::all_of(name.begin(), name.end(), IsNameCharacter)) {
    return Errorf(
        "\"%s\" cannot be a template's name: letters, digits, '.', '-' and '_', beginning with a "
        "letter or a digit",
        Shown(name).c_str());
  }
  return OkStatus();
}

Result<std::string> FindTemplate(const std::string& name_or_path) {
  if (name_or_path.find('/') != std::string::npos) return name_or_path;
  CUBE_TRY(CheckTemplateName(name_or_path));
  std::string path = TemplatesFolder() + "/" + name_or_path;
  struct stat info;
  if (lstat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return path;
  return Errorf("there is no template \"%s\" in %s", name_or_path.c_str(),
                TemplatesFolder().c_str());
}

TemplateInfo ReadTemplate(const std::string& path) {
  TemplateInfo info;
  info.name = fs::path(path).filename();
  info.path = path;
  auto manifest = snapshot::Manifest::Load(path);
  if (manifest.ok()) {
    info.manifest = std::move(*manifest);
  } else {
    info.error = manifest.error().message();
  }
  std::error_code failed;
  for (fs::directory_iterator entry(path, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    struct stat file;
    if (lstat(entry->path().c_str(), &file) == 0 && S_ISREG(file.st_mode)) {
      info.disk_bytes += static_cast<uint64_t>(file.st_blocks) * 512;
    }
  }
  return info;
}

Result<std::vector<TemplateInfo>> ListTemplates() {
  std::vector<TemplateInfo> all;
  for (const std::string& name : VisibleFolders(TemplatesFolder())) {
    all.push_back(ReadTemplate(TemplatesFolder() + "/" + name));
  }
  return all;
}

Status RemoveTemplate(const std::string& name, bool force) {
  CUBE_TRY(CheckTemplateName(name));
  CUBE_ASSIGN(std::string path, FindTemplate(name));
  UniqueFd memory(open((path + "/memory").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!force) {
    auto manifest = snapshot::Manifest::Load(path);
    if (manifest.ok()) {
      if (auto child = FindChild(manifest->id)) {
        return Errorf("template %s is what %s builds on; --force removes it all the same",
                      name.c_str(), child->c_str());
      }
    }
    if (memory.valid() && flock(memory.get(), LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
      return Errorf(
          "template %s is in use by a running sandbox or a zygote; --force removes it "
          "all the same",
          name.c_str());
    }
  }
  return snapshot::RemoveSnapshot(path);
}

}  // namespace cube::vmm
