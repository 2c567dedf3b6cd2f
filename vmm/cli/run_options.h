#ifndef CUBE_VMM_CLI_RUN_OPTIONS_H_
#define CUBE_VMM_CLI_RUN_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "snapshot/defaults.h"
#include "vmm/cli/device_options.h"

namespace cube::vmm {

// `cube-vmm run`, as given.
struct RunOptions {
  std::string kernel;
  std::string initrd;
  std::string system_map;
  std::string append;
  uint64_t memory_mib = 128;
  uint32_t cpus = 1;
  // What to clone or restore instead of looking for a template by the kernel: a snapshot's folder.
  std::string snapshot;
  bool lazy = false;  // its memory is loaded as it is touched, if it is in the page store
  // The snapshot was taken of a running machine: what runs in it goes on, and no command is
  // started.
  bool attach = false;
  // Without a command: a machine that waits to be used by its control socket, not a shell.
  bool serve = false;
  // Nothing is run until the control socket is asked for a start. stdout is told that it waits, as
  // the zygote's peers are told of a clone.
  bool parked = false;
  // The sandbox's id, as MakeId() makes them; empty: a new one.
  std::string id;
  // The process has no caller to write to: stdout and stderr are a log of its own (sandbox_log.h).
  bool log = false;
  // The machine boots only to become the template in that folder, which is not there yet.
  std::string freeze_as;
  bool boot = false;   // even if there is, or could be, a template to clone
  double timeout = 0;  // seconds, 0 for none
  bool json = false;
  std::string console;  // where the serial console's output goes: "", "-" for stderr, or a file
  std::string profile;  // file for a profile of the guest kernel, by System.map
  std::vector<std::string> environment;
  // What a command finds in its environment unless it, or the template, says otherwise.
  std::vector<std::string> common_environment;
  std::string directory;  // "": the template's, or else "/"
  std::string user;       // NAME or NUMBER, perhaps with :GROUP; "": the template's, or else root
  std::vector<std::string> command;
  bool own_command = false;     // the template's, of which `command` are the last arguments
  snapshot::Defaults defaults;  // of the template that is made
  DeviceOptions devices;
  std::string ring0 = "auto";  // or "kvm", "engine": who runs it where KVM only emulates it
  std::string kvm = "/dev/kvm";
  std::string filters;  // seccomp programs that it begins with (filters.h); "": none
};

// Exit statuses that are not the command's, as docker and timeout have them.
inline constexpr int kStatusTimeout = 124;
inline constexpr int kStatusVmmError = 125;
inline constexpr int kStatusCannotRun = 126;
inline constexpr int kStatusNotFound = 127;

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_RUN_OPTIONS_H_
