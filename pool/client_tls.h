#ifndef CUBE_POOL_CLIENT_TLS_H_
#define CUBE_POOL_CLIENT_TLS_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace cube::pool {

// `cube tls`, as given.
struct TlsWords {
  std::string domain;
  std::vector<std::string> names;
};

// Adds it to the client's commands. `words` outlives the parser.
void AddTlsCommands(CLI::App* app, TlsWords* words);

// Makes the files in HOME/tls and says, on stdout, what they are and what to do with them.
Status TlsCommand(const TlsWords& words, const std::string& home, bool as_json);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_TLS_H_
