// What becomes of a template of the node that nobody wants any more.
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <filesystem>

#include "pool/node.h"
#include "pool/spawn.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

constexpr milliseconds kRemoveLimit(60'000);
constexpr size_t kMaxOutput = 4096;

}  // namespace

Task<Outcome<Done>> Node::RemoveTemplate(std::string name) {
  auto entry = registry_.entries().find(name);
  if (entry == registry_.entries().end()) {
    co_return Refuse(Fault::kNotFound, "there is no template \"%.64s\"", name.c_str());
  }
  const std::string folder = entry->second.folder;
  size_t sandboxes = 0, snapshots = 0;
  for (const auto& [id, sandbox] : sandboxes_) sandboxes += sandbox->record().template_name == name;
  for (const SnapshotRecord& record : context_->shelf.Named()) {
    snapshots += record.template_name == name;
  }
  if (sandboxes + snapshots != 0) {
    co_return Refuse(Fault::kConflict, "template %s is in use by %zu sandboxes and %zu snapshots",
                     name.c_str(), sandboxes, snapshots);
  }
  // The zygote and what it has parked are ended, which is what would have it open.
  Remove(name);
  std::vector<std::string> words = {context_->config.vmm, "template", "rm", name, "--force"};
  POOL_CO_ASSIGN(Spawned child, SpawnProcess(words, {"CUBE_HOME=" + context_->config.home}));
  auto output =
      std::make_shared<asio::posix::stream_descriptor>(context_->io, child.output.Release());
  std::string said(kMaxOutput, '\0');
  size_t size = 0;
  for (;;) {
    auto rest = asio::buffer(said.data() + size, said.size() - size);
    auto [ended, more] = co_await output->async_read_some(rest, kAsTuple);
    if (ended || size + more == said.size()) break;
    size += more;
  }
  said.resize(size);
  co_await AwaitExit(context_->io, child.process.fd(), kRemoveLimit);
  registry_.Scan();
  std::error_code failed;
  if (!fs::exists(folder, failed)) co_return Done();
  auto made = registry_.entries().find(name);
  if (made != registry_.entries().end() && !templates_.contains(name)) {
    OnTemplate(made->second, "added");
  }
  co_return Refuse(Fault::kInternal, "template %s stays: %.800s", name.c_str(), said.c_str());
}

}  // namespace cube::pool
