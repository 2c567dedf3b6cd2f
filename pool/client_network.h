#ifndef CUBE_POOL_CLIENT_NETWORK_H_
#define CUBE_POOL_CLIENT_NETWORK_H_

#include <CLI/CLI.hpp>
#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace cube::pool {

// `cube net`, as given.
struct NetworkWords {
  std::string id, protocol = "tcp";
  std::vector<std::string> allow, deny;
  bool no_internet = false, all = false, remove = false;
  uint64_t bytes = 0, packets = 0, host_port = 0, port = 0;
};

// The group `net` of the client's commands.
CLI::App* AddNetworkCommands(CLI::App* app, NetworkWords* words);
// The request for one of them.
boost::json::object NetworkRequest(const std::string& action, const NetworkWords& words);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_NETWORK_H_
