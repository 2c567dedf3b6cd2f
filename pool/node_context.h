#ifndef CUBE_POOL_NODE_CONTEXT_H_
#define CUBE_POOL_NODE_CONTEXT_H_

#include <functional>
#include <memory>
#include <string>

#include "pool/async.h"
#include "pool/capacity.h"
#include "pool/config.h"
#include "pool/events.h"
#include "pool/launcher.h"
#include "pool/node_network.h"
#include "pool/snapshot_shelf.h"
#include "pool/store.h"

namespace cube::pool {

class Sandbox;

// What of the node its sandboxes work with. Outlives them.
struct NodeContext {
  NodeContext(asio::io_context& loop, std::unique_ptr<Launcher> by, Store opened,
              const std::string& snapshots)
      : io(loop), launcher(std::move(by)), store(std::move(opened)), shelf(&store, snapshots) {}

  // Of a machine that is gone, for good or until its sandbox is resumed.
  void ReleaseNetwork(const std::string& id) {
    if (network != nullptr) network->Release(id);
  }

  asio::io_context& io;
  Config config;
  std::string boot_id = BootId();
  std::unique_ptr<Launcher> launcher;
  // Null: sandboxes have none.
  std::unique_ptr<NodeNetwork> network;
  Store store;
  SnapshotShelf shelf;
  Capacity capacity;
  Events events;
  // Parked clones are let go until a machine of that size finds room.
  std::function<void(uint64_t memory_mib, uint32_t cpus)> make_room;
  // A sandbox that is no more is to be forgotten.
  std::function<void(const std::string& id)> forget;
  // Snapshots that nobody needs any more may be there.
  std::function<void()> tidy;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_NODE_CONTEXT_H_
