// `cubed`: the node daemon.
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "pool/daemon.h"

int main(int argc, char** argv) {
  cube::pool::DaemonOptions options;
  std::string checked;
  bool no_jail = false;
  CLI::App app{"cubed: sandboxes out of warm clones", "cubed"};
  app.set_version_flag("--version", "cubed 0.1");
  app.add_option("--config", options.config, "TOML file; without one all is as by default");
  app.add_option("--home", options.home, "the node's folder, in place of node.home");
  app.add_option("--vmm", options.vmm, "the program cube-vmm, in place of node.vmm");
  app.add_option("--listen", options.listen, "ADDRESS:PORT of HTTP, or off; for api.listen");
  app.add_flag("--no-jail", no_jail, "run machines without a jail: for debugging");
  CLI::App* check = app.add_subcommand("check-config", "Say whether a configuration is valid");
  check->add_option("file", checked, "the file")->required();
  CLI11_PARSE(app, argc, argv);
  if (check->parsed()) {
    auto config = cube::pool::Config::Load(checked);
    if (!config.ok()) {
      fprintf(stderr, "cubed: %s\n", config.error().message().c_str());
      return 1;
    }
    printf("%s: valid\n", checked.c_str());
    return 0;
  }
  options.jail = !no_jail;
  spdlog::set_default_logger(spdlog::stderr_logger_mt("cubed"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  auto status = cube::pool::Daemon(std::move(options)).Run();
  if (status.ok()) return *status;
  fprintf(stderr, "cubed: %s\n", status.error().message().c_str());
  return 1;
}
