#ifndef CUBE_POOL_CONFIG_H_
#define CUBE_POOL_CONFIG_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::pool {

// What happens to a sandbox whose time is over.
enum class OnTimeout { kKill, kPause };

// The warm pool of one template.
struct PoolConfig {
  uint32_t size = 4;                // parked clones to have ready
  uint32_t concurrency = 2;         // of them being made at once, at most
  uint32_t refill_per_second = 50;  // at most

  bool operator==(const PoolConfig&) const = default;
};

// Who may use the control plane over HTTP.
enum class ApiAuth {
  kAuto,      // keys, once there has been one; before, everybody, if only this host can connect
  kRequired,  // keys
  kOff,       // everybody: on this host only
};

// The HTTP endpoint.
struct ApiConfig {
  std::string listen = "127.0.0.1:3000";  // address:port; "off": none
  std::string domain;                     // sandboxes are at PORT-ID.domain; "": by headers alone
  ApiAuth auth = ApiAuth::kAuto;
  std::string tls_certificate, tls_key;  // PEM files; both or neither
  uint32_t max_connections = 4096;
  uint32_t max_header_bytes = 32 * 1024;
  uint32_t max_body_bytes = 4 * 1024 * 1024;  // of requests to the control plane
  uint32_t header_seconds = 10;               // a header that takes longer is given up
  uint32_t idle_seconds = 75;                 // between two requests of a connection
  uint32_t requests_per_second = 1000;        // of each key; 0: as many as it likes

  bool operator==(const ApiConfig&) const = default;
};

// What jails are made of.
struct JailConfig {
  uint32_t first_uid = 1'900'000'000;  // users and groups of the host that are theirs alone
  uint32_t uids = 65'536;              // so many
  uint32_t processes = 64;             // and threads, of one sandbox
  uint64_t io_mib_per_second = 0;      // each of reads and writes; 0: no limit

  bool operator==(const JailConfig&) const = default;
};

// The network of sandboxes. Addresses are those of IPv4, as text, unless said otherwise.
struct NetworkConfig {
  bool enabled = false;
  std::string uplink;                   // an interface; empty: that of the default route
  std::string prefix = "cube";          // of the names of interfaces that are made
  std::vector<std::string> addresses;   // that sandboxes' traffic comes from; none: the uplink's
  std::vector<std::string> exceptions;  // networks, IPv6 too, that are not denied to all
  std::vector<std::string> dns;         // name servers; none: the host's
  std::string host_network = "198.18.0.0/16";  // sandboxes, as the host knows them
  uint32_t first_port = 10240, last_port = 32767;
  uint32_t max_flows = 16384;  // of one sandbox
  uint32_t taps = 8;           // to have ready
  bool ipv6 = false;           // carried where the uplink has a global address of it
};

// The node's configuration: one TOML file, of which every key has a default. docs/node.md lists
// them. Values are within the ranges named there.
struct Config {
  // [node]
  std::string home = "/var/lib/cube";  // templates, snapshots, the store, sockets
  std::string vmm = "cube-vmm";        // the program; without a '/' it is looked for in $PATH
  std::string socket;                  // the control socket; HOME/cubed.sock
  std::string log_level = "info";
  // [capacity]
  uint64_t memory_mib = 0;        // that sandboxes may use; 0: what the host has less the reserve
  uint64_t reserve_mib = 1024;    // of MemAvailable, which no sandbox and no pool may take
  double memory_overcommit = 16;  // guests' memory together, as a multiple of that
  double cpu_overcommit = 256;    // vCPUs together, as a multiple of the host's processors
  uint32_t max_sandboxes = 1000;
  // [sandbox]
  uint32_t timeout_seconds = 300;  // unless a create says another
  uint32_t max_timeout_seconds = 86400;
  OnTimeout on_timeout = OnTimeout::kKill;
  uint32_t ready_seconds = 10;        // an agent that takes longer is given up
  uint32_t keep_dead_seconds = 3600;  // a dead sandbox's reason and log
  uint32_t max_chain = 16;            // pauses that build upon one another
  // [network]
  NetworkConfig network;
  // [pressure]
  double psi_some_avg10 = 20;  // percent, /proc/pressure/memory, from which on pools shrink
  ApiConfig api;               // [api]
  // [jail]
  JailConfig jail;
  // [pool], and [template.NAME] for those that differ
  PoolConfig pool;
  std::map<std::string, PoolConfig> templates;

  // The pool of the template `name`. Templates that `cube-vmm run` made for itself have none unless
  // they are named.
  PoolConfig PoolOf(const std::string& name) const;
  std::string ControlSocket() const { return socket.empty() ? home + "/cubed.sock" : socket; }

  // `text` may be anything; errors are "NAME:LINE: what is wrong", with the value and its range.
  static Result<Config> Parse(std::string_view text, const std::string& name);
  static Result<Config> Load(const std::string& path);
};

}  // namespace cube::pool

#endif  // CUBE_POOL_CONFIG_H_
