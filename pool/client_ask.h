#ifndef CUBE_POOL_CLIENT_ASK_H_
#define CUBE_POOL_CLIENT_ASK_H_

#include <boost/json/object.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "pool/client_network.h"
#include "pool/client_table.h"
#include "pool/client_tools.h"
#include "vmm/cli/cube_home.h"

namespace cube::pool {

// A command line of `cube`, as given.
struct Words {
  std::string home = vmm::CubeHome();
  std::string socket;
  bool as_json = false;
  // Of commands.
  std::string id, snapshot, name, template_name, state, cursor, on_timeout, mode = "pause";
  std::string config, vmm, token, listen;
  std::vector<std::string> environment, metadata;
  uint64_t count = 1, timeout = 0, limit_memory = 0;
  double limit_cpus = 0;
  bool no_jail = false, follow = false;
  NetworkWords net;
  std::string shell;
  ToolWords tools;
};

// Shows people an answer that is not an error.
using Printer = std::function<void(const boost::json::object&)>;

// The rows of the answer's `member`, as a table.
Printer Rows(std::string member, std::vector<ClientColumn> columns);
// The id of the answer's `member`, in a line: what matters to a script.
Printer OnlyId(std::string member);
void PrintAll(const boost::json::object& answer);
void PrintNothing(const boost::json::object& answer);

// cubed's control socket.
std::string SocketOf(const Words& words);
// Says what went wrong, to a person or as JSON; the exit status.
int Fail(const Words& words, const Error& error);
// Asks cubed, and prints what it answers, as it is with --json; the exit status.
int Ask(const Words& words, const boost::json::object& request, const Printer& print);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_ASK_H_
