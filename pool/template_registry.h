#ifndef CUBE_POOL_TEMPLATE_REGISTRY_H_
#define CUBE_POOL_TEMPLATE_REGISTRY_H_

#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <map>
#include <string>

#include "pool/async.h"
#include "pool/outcome.h"

namespace cube::pool {

// A template as its folder shows it.
struct TemplateEntry {
  std::string name;
  std::string folder;
  std::string id;       // of its snapshot: another one once it has been built anew
  std::string created;  // RFC 3339
  std::string error;    // why it cannot be used; the rest is empty then
  uint64_t memory_mib = 0;
  uint32_t cpus = 0;
  size_t volume_devices = 0;      // volumes that a clone can have
  std::string default_user;       // of programs in clones; "": the agent's own choice
  std::string default_directory;  // likewise
};

// The templates in a folder, watched: what is built, rebuilt or removed there (vmm/cli/
// template_folder.h) is told of. On one thread.
class TemplateRegistry {
 public:
  // `change`: "added", "rebuilt", "removed".
  using Listener = std::function<void(const TemplateEntry& entry, const char* change)>;

  TemplateRegistry(asio::io_context& io, std::string folder, Listener listener)
      : folder_(std::move(folder)), listener_(std::move(listener)), watch_(io) {}

  // Makes the folder if need be, reads what is there, and watches it from then on.
  Status Start();
  void Stop();
  // Looks at the folder now. A folder without a readable manifest is an entry with an error.
  void Scan();
  // kNotFound, or why the template is not usable.
  Outcome<TemplateEntry> Find(const std::string& name) const;
  const std::map<std::string, TemplateEntry>& entries() const { return entries_; }

 private:
  void Await();

  std::string folder_;
  Listener listener_;
  asio::posix::stream_descriptor watch_;
  std::map<std::string, TemplateEntry> entries_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_TEMPLATE_REGISTRY_H_
