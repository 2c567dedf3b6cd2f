#include "pool/template_registry.h"

#include <sys/inotify.h>
#include <unistd.h>

#include <filesystem>

#include "snapshot/manifest.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMiB = 1 << 20;

TemplateEntry Read(const fs::path& folder) {
  TemplateEntry entry;
  entry.name = folder.filename();
  entry.folder = folder;
  auto manifest = snapshot::Manifest::Load(folder);
  if (!manifest.ok()) {
    entry.error = manifest.error().message();
    return entry;
  }
  entry.id = manifest->id;
  entry.created = manifest->created;
  entry.memory_mib = manifest->memory_bytes / kMiB;
  entry.cpus = manifest->cpus;
  for (const auto& share : manifest->hardware.shares) {
    entry.volume_devices += share.directory.empty() ? 1 : 0;
  }
  entry.default_user = manifest->defaults.user;
  entry.default_directory = manifest->defaults.directory;
  return entry;
}

}  // namespace

Status TemplateRegistry::Start() {
  std::error_code failed;
  fs::create_directories(folder_, failed);
  if (failed) return Errorf("%s: %s", folder_.c_str(), failed.message().c_str());
  int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (watch < 0) return ErrnoError("inotify");
  boost::system::error_code ignored;
  watch_.assign(watch, ignored);
  // A template is published and removed by a rename of its folder.
  constexpr uint32_t kChanges = IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ONLYDIR;
  if (inotify_add_watch(watch, folder_.c_str(), kChanges) < 0) {
    return ErrnoError("watching %s", folder_.c_str());
  }
  Scan();
  Await();
  return OkStatus();
}

void TemplateRegistry::Stop() {
  boost::system::error_code ignored;
  watch_.close(ignored);
}

void TemplateRegistry::Await() {
  watch_.async_wait(asio::posix::stream_descriptor::wait_read,
                    [this](boost::system::error_code failed) {
                      if (failed) return;
                      // What has changed is seen by looking; the words only wake.
                      alignas(inotify_event) char words[4096];
                      while (read(watch_.native_handle(), words, sizeof words) > 0) {
                      }
                      Scan();
                      Await();
                    });
}

void TemplateRegistry::Scan() {
  std::map<std::string, TemplateEntry> now;
  std::error_code failed;
  for (fs::directory_iterator one(folder_, failed), end; !failed && one != end;
       one.increment(failed)) {
    std::error_code ignored;
    std::string name = one->path().filename();
    // Those that begin with a dot are on their way to or from being templates.
    if (name.starts_with('.') || !one->is_directory(ignored) || one->is_symlink(ignored)) continue;
    now.emplace(name, Read(one->path()));
  }
  std::map<std::string, TemplateEntry> before = std::exchange(entries_, std::move(now));
  for (const auto& [name, entry] : before) {
    if (!entries_.contains(name)) listener_(entry, "removed");
  }
  for (const auto& [name, entry] : std::map(entries_)) {
    auto old = before.find(name);
    if (old == before.end()) {
      listener_(entry, "added");
    } else if (old->second.id != entry.id || old->second.error != entry.error) {
      listener_(entry, "rebuilt");
    }
  }
}

Outcome<TemplateEntry> TemplateRegistry::Find(const std::string& name) const {
  auto found = entries_.find(name);
  if (found == entries_.end()) {
    return Refuse(Fault::kNotFound, "there is no template \"%.64s\"", name.c_str());
  }
  if (!found->second.error.empty()) {
    return Refuse(Fault::kConflict, "template %s cannot be used: %.800s", name.c_str(),
                  found->second.error.c_str());
  }
  return found->second;
}

}  // namespace cube::pool
