#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>

#include "base/monotonic.h"
#include "vmm/cli/command_answer.h"
#include "vmm/cli/control_command.h"
#include "vmm/cli/disk_command.h"
#include "vmm/cli/host_command.h"
#include "vmm/cli/root_disk_option.h"
#include "vmm/cli/run_command.h"
#include "vmm/cli/cube_home.h"
#include "vmm/cli/store_command.h"
#include "vmm/cli/template_command.h"
#include "vmm/cli/template_folder.h"
#include "vmm/cli/template_program.h"
#include "vmm/cli/template_prune.h"
#include "vmm/cli/zygote_command.h"

namespace {

// A descriptor below 3 that is closed would be handed to the next file opened.
void OpenStandardDescriptors() {
  for (int fd = 0; fd < 3; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) (void)open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
  }
}

std::string ImagesFolder() { return cube::vmm::CubeHome() + "/images"; }

std::string ImagePath(const char* name) { return ImagesFolder() + "/" + name; }

// What a command in the guest finds in its environment unless told otherwise.
std::vector<std::string> DefaultEnvironment() {
  std::vector<std::string> environment = {
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
      "LANG=C.UTF-8"};
  const char* term = getenv("TERM");
  if (term != nullptr && isatty(STDIN_FILENO) != 0)
    environment.push_back(std::string("TERM=") + term);
  return environment;
}

// What a machine consists of: for the commands that boot one. The option of the initrd.
CLI::Option* AddMachineOptions(CLI::App* app, cube::vmm::RunOptions* run, std::string* rootfs) {
  app->add_option("--kernel", run->kernel, "ELF vmlinux or bzImage")->capture_default_str();
  CLI::Option* initrd =
      app->add_option("--initrd", run->initrd, "initramfs with /init; '' for none")
          ->capture_default_str();
  app->add_option("--rootfs", *rootfs,
                  "root disk: NAME or FILE with the words of --disk; the image is not\n"
                  "written, and what the guest writes is gone with the VM, unless overlay=FILE");
  app->add_option("--memory", run->memory_mib, "guest memory, MiB")->capture_default_str();
  app->add_option("--cpus", run->cpus, "vCPUs, 1 to 8")->capture_default_str();
  app->add_option("--append", run->append, "words added to the kernel's command line");
  app->add_option("--console", run->console, "serial console's output: a file, or - for stderr");
  app->add_option("--system-map", run->system_map, "System.map, to name addresses in dumps");
  app->add_option("--net", run->devices.net,
                  "tap=NAME or fd=N[,mac=..][,mtu=N][,ip=A.B.C.D/P][,gw=A.B.C.D]\n"
                  "[,dns=A.B.C.D][,bps=N][,pps=N] (rx-, tx- for one direction): a NIC")
      ->allow_extra_args(false);
  app->add_option(
      "--vsock", run->devices.vsock,
      "PATH[,cid=N]: socket to AF_VSOCK ports of the guest; its own calls come to PATH_<port>");
  app->add_option("--balloon", run->devices.balloon_mib,
                  "MiB of its memory that the guest gives back until it needs them");
  app->add_option("--disk", run->devices.disks,
                  "FILE[:ro][:layer=FILE]...[:overlay=FILE][:id=NAME][:bps=N][:iops=N]: "
                  "a disk; again for more, vda, vdb, ...")
      ->allow_extra_args(false);
  app->add_option("--share", run->devices.shares,
                  "HOSTDIR:TAG[:ro]: a directory for the guest, at /mnt/TAG there; repeatable")
      ->allow_extra_args(false);
  app->add_option("--ring0", run->ring0, "who runs ring 0 where KVM only emulates it")
      ->check(CLI::IsMember({"auto", "kvm", "engine"}))
      ->capture_default_str();
  app->add_option("--kvm", run->kvm, "KVM's device")->capture_default_str();
  return initrd;
}

// `cube-vmm template`, as given.
struct TemplateWords {
  std::string action;  // "build", "list", "inspect", "rm", "prune"; "" for another command
  std::string name;
  bool force = false;
  bool json = false;
  uint32_t volumes = 4;
  cube::vmm::TemplateSource source;
};

// What of the options of `template build` is not about the machine.
void AddBuildOptions(CLI::App* build, TemplateWords* words, cube::vmm::RunOptions* run) {
  cube::vmm::TemplateSource* source = &words->source;
  build->add_option("--timeout", run->timeout, "seconds until it is given up (120)")
      ->check(CLI::PositiveNumber);
  CLI::Option* image = build->add_option(
      "--image", source->image, "its root disk is this container image: an OCI layout's folder, or\n"
      "a tar of one, or of 'docker save'");
  CLI::Option* name = build->add_option("--image-name", source->image_name,
                                        "which, of a file with more than one");
  build->add_option("--steps", source->steps, "its root disk is made by the steps in this file")
      ->excludes(image)->excludes(name);
  build->add_option("--context", source->context,
                    "the folder that COPY copies from (that of the file of steps)");
  build->add_option("--disk-size", source->disk_size,
                    "the root disk's size, a number with M or G; the content and room for more");
  build->add_option("--volumes", words->volumes,
                    "volumes that a clone can be given: a device each, as far as there is room")
      ->check(CLI::Range(0, 8))
      ->capture_default_str();
  build->add_option("-e,--env", run->defaults.environment, "NAME=VALUE for commands in its clones")
      ->allow_extra_args(false);
  build->add_option("-w,--workdir", run->defaults.directory, "working directory of such commands");
  build->add_option("-u,--user", run->defaults.user, "USER[:GROUP] they run as");
  build->add_option("--entrypoint", run->defaults.entrypoint,
                    "the first words of the command of 'clone --own-command', one each time")
      ->allow_extra_args(false);
}

// The option of the initrd of the machine that is built.
CLI::Option* AddTemplateCommands(CLI::App* app, TemplateWords* words, cube::vmm::RunOptions* run,
                                 std::string* rootfs) {
  CLI::App* group = app->add_subcommand("template", "Make, show and delete templates");
  group->require_subcommand(1);
  CLI::App* build = group->add_subcommand("build", "Boot a machine and freeze it once it is warm");
  CLI::Option* initrd = AddMachineOptions(build, run, rootfs);
  AddBuildOptions(build, words, run);
  CLI::App* list = group->add_subcommand("list", "All of them, those that run has made as well");
  CLI::App* inspect = group->add_subcommand("inspect", "What one holds; whether it runs here");
  CLI::App* remove = group->add_subcommand("rm", "Delete one");
  remove->add_flag("--force", words->force, "even if a clone or a snapshot still needs it");
  for (CLI::App* one : {build, inspect, remove}) {
    one->add_option("name", words->name, "its name, in $CUBE_HOME/templates")->required();
  }
  build->add_option("command", run->defaults.command, "the command of 'clone --own-command'");
  CLI::App* prune = group->add_subcommand("prune", "Delete disks of builds that none needs");
  for (CLI::App* one : {build, list, inspect, remove, prune}) {
    one->add_flag("--json", words->json, "the answer as JSON, errors as well");
    one->callback([one, words] { words->action = one->get_name(); });
  }
  return initrd;
}

int TemplateCommand(const TemplateWords& words, cube::vmm::RunOptions run, uint64_t start) {
  constexpr double kBuildSeconds = 120;
  if (words.action == "list") return cube::vmm::TemplateListCommand(words.json);
  if (words.action == "inspect") return cube::vmm::TemplateInspectCommand(words.name, words.json);
  if (words.action == "prune") return cube::vmm::TemplatePruneCommand(words.json);
  if (words.action == "rm") {
    return cube::vmm::TemplateRemoveCommand(words.name, words.force, words.json);
  }
  if (run.timeout == 0) run.timeout = kBuildSeconds;
  return cube::vmm::TemplateBuildCommand(words.name, std::move(run), words.json, start);
}

// --rootfs as what it stands for.
cube::Status PlaceRootDisk(const std::string& rootfs, bool has_initrd, cube::vmm::RunOptions* run) {
  if (rootfs.empty()) return cube::OkStatus();
  CUBE_ASSIGN(cube::vmm::RootDisk disk, cube::vmm::ParseRootDisk(rootfs, ImagesFolder()));
  run->append = disk.kernel_argument + (run->append.empty() ? "" : " " + run->append);
  run->devices.disks.insert(run->devices.disks.begin(), disk.disk);
  if (!has_initrd) run->initrd = ImagePath("agent-initramfs.cpio");
  return cube::OkStatus();
}

// The page store's commands, and flatten, which like them needs no machine.
void AddStoreCommands(CLI::App* app, cube::vmm::StoreOptions* options) {
  CLI::App* store = app->add_subcommand("store", "Snapshots at rest, which share what is equal");
  store->require_subcommand(1);
  CLI::App* add = store->add_subcommand("add", "Put a snapshot in; prints the folder to restore");
  add->add_option("snapshot", options->argument, "a snapshot's folder")->required();
  CLI::App* remove = store->add_subcommand("rm", "Take a snapshot out");
  remove->add_option("id", options->argument, "its id")->required();
  CLI::App* flatten = app->add_subcommand("flatten", "Make one snapshot of it and its parents");
  flatten->add_option("snapshot", options->argument, "a snapshot's folder, or the id of a stored one")
      ->required();
  flatten->add_option("out", options->out, "the folder to make")->required();
  for (CLI::App* one : {add, remove, flatten, store->add_subcommand("stats", "What is in it"),
                        store->add_subcommand("gc", "Delete what no snapshot in it needs"),
                        store->add_subcommand("verify", "Read all of it, and name what is damaged")}) {
    one->add_flag("--json", options->json, "the answer as JSON, errors as well");
    one->parse_complete_callback([one, options] { options->action = one->get_name(); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t start = cube::MonotonicNow();
  OpenStandardDescriptors();
  // One arena: a second one per thread would be private memory for nothing.
  mallopt(M_ARENA_MAX, 1);

  using cube::vmm::RunOptions;
  RunOptions run;
  run.kernel = ImagePath("vmlinux");
  run.initrd = ImagePath("initramfs.cpio");
  std::string rootfs;
  bool has_initrd = false;
  bool host_json = false;
  std::vector<std::string> flatten;
  bool is_host = false;
  bool is_flatten = false;
  std::string sandbox, out, request;
  TemplateWords words;
  cube::vmm::ZygoteOptions zygote;
  uint32_t count = 1;
  bool diff = false, control_json = false, is_zygote = false;
  bool eager = false;  // what is done anyway
  cube::vmm::StoreOptions store;
  {
    CLI::App app{"cube-vmm: one process, one microVM", "cube-vmm"};
    app.require_subcommand(1);
    app.set_version_flag("--version", "cube-vmm 0.1");
    CLI::App* run_app =
        app.add_subcommand("run", "Run a command in a VM of its own, exit as it does");
    CLI::Option* initrd = AddMachineOptions(run_app, &run, &rootfs);
    CLI::Option* template_initrd = AddTemplateCommands(&app, &words, &run, &rootfs);
    run_app->add_option("--timeout", run.timeout, "seconds until the VM is stopped (status 124)")
        ->check(CLI::NonNegativeNumber);
    run_app->add_flag("--boot", run.boot,
                      "boot afresh instead of cloning a template of the same machine");
    run_app->add_flag("--json", run.json, "one JSON object a line: output, then the result");
    run_app->add_option("--profile", run.profile,
                        "write where the guest kernel spent its time (needs --system-map)");
    run_app->add_option("-e,--env", run.environment, "NAME=VALUE for the command")
        ->allow_extra_args(false);
    run_app->add_option("-w,--workdir", run.directory, "the command's working directory (/)");
    run_app->add_option("-u,--user", run.user, "USER[:GROUP] that it runs as (root)");
    run_app->add_option("command", run.command,
                        "what to run; none on a terminal: a shell, Ctrl-A x leaves");
    run_app->footer(
        "The exit status is the command's, or 128+n for its signal n. 124: time limit;\n"
        "125: the VMM failed, one line on stderr says why; 126: not executable; 127: not found.");
    CLI::App* disk_app = app.add_subcommand("disk", "Work on disk images");
    disk_app->require_subcommand(1);
    CLI::App* flatten_app =
        disk_app->add_subcommand("flatten", "What a disk holds, as a raw image");
    flatten_app->add_option("files", flatten, "BASE [LAYER...] OVERLAY OUT")->required();
    CLI::App* host_app = app.add_subcommand("host", "What this host can do");
    host_app->add_flag("--json", host_json, "as one JSON object");
    CLI::App* clone_app = app.add_subcommand("clone", "Run a command in a clone of a template");
    clone_app->add_option("template", run.snapshot, "a template's name or folder")->required();
    CLI::App* zygote_app =
        app.add_subcommand("zygote", "Fork clones of a template on request, each parked");
    CLI::App* restore_app =
        app.add_subcommand("restore", "Let a machine go on from where its snapshot was taken");
    restore_app
        ->add_option("snapshot", run.snapshot, "a snapshot's folder, or the id of a stored one")
        ->required();
    CLI::Option* lazy = restore_app->add_flag(
        "--lazy", run.lazy, "load memory from the page store when it is touched");
    restore_app->add_flag("--eager", eager, "load it before the machine goes on (the default)")
        ->excludes(lazy);
    restore_app->add_option("--id", run.id, "the sandbox's id, of 20 hexadecimal digits; a new one");
    for (CLI::App* one : {zygote_app, restore_app}) {
      one->add_option("--filters", one == zygote_app ? zygote.filters : run.filters,
                      "MACHINE,VCPU: descriptors of seccomp programs, which it begins with");
    }
    restore_app->add_flag("--parked", run.parked,
                          "wait for a start by its control socket; stdout is told when it waits");
    AddStoreCommands(&app, &store);
    for (CLI::App* one : {clone_app, restore_app}) {
      one->add_flag("--json", run.json, "one JSON object a line: output, then the result");
      one->add_option("--timeout", run.timeout, "seconds until the VM is stopped (status 124)")
          ->check(CLI::NonNegativeNumber);
      one->add_option("--console", run.console, "serial console's output: a file, or - for stderr");
      one->add_option("--net", run.devices.net,
                      "tap=NAME or fd=N[,bps=N][,pps=N]: the network of its NICs, in their order; "
                      "without one the link is down")
          ->allow_extra_args(false);
      one->add_option("--vsock", run.devices.vsock,
                      "PATH: its socket to AF_VSOCK ports; ID.vsock beside the control socket");
      one->add_option("--share", run.devices.shares,
                      "HOSTDIR:TAG[:ro]: another directory for the share with that tag")
          ->allow_extra_args(false);
    }
    clone_app->add_option("-e,--env", run.environment, "NAME=VALUE for the command")
        ->allow_extra_args(false);
    clone_app->add_option("-w,--workdir", run.directory,
                          "the command's working directory (the template's)");
    clone_app->add_option("-u,--user", run.user, "USER[:GROUP] that it runs as (the template's)");
    clone_app->add_flag("--own-command", run.own_command,
                        "run the template's command; what is given are its arguments");
    clone_app->add_option("command", run.command, "what to run; none: wait for requests");
    zygote_app->add_option("template", zygote.name, "a template's name or folder")->required();
    zygote_app->add_option("--socket", zygote.socket, "where to listen for requests")->required();
    zygote_app->add_option("--pending", zygote.pending, "clones it makes at once; more are refused")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    zygote_app->add_flag("--json", zygote.json, "that it is ready as JSON, errors as well");
    CLI::App* snapshot_app = app.add_subcommand("snapshot", "Take a snapshot of a running sandbox");
    snapshot_app->add_option("sandbox", sandbox, "its id, or the path of its socket")->required();
    snapshot_app->add_option("out", out, "the folder to make")->required();
    snapshot_app->add_flag("--diff", diff, "only what differs from what it was cloned from");
    CLI::App* rollback_app = app.add_subcommand("rollback", "Put a sandbox back to a snapshot");
    rollback_app->add_option("sandbox", sandbox, "its id, or the path of its socket")->required();
    rollback_app->add_option("snapshot", out, "the snapshot's folder")->required();
    CLI::App* fork_app = app.add_subcommand("fork", "Make running clones of a running sandbox");
    fork_app->add_option("sandbox", sandbox, "its id, or the path of its socket")->required();
    fork_app->add_option("-n,--count", count, "how many, 1 to 100")->capture_default_str();
    CLI::App* info_app = app.add_subcommand("info", "What a sandbox is");
    CLI::App* pause_app = app.add_subcommand("pause", "Stop a sandbox's processors");
    CLI::App* resume_app = app.add_subcommand("resume", "Let them go on");
    CLI::App* stop_app = app.add_subcommand("stop", "End a sandbox");
    for (CLI::App* one : {info_app, pause_app, resume_app, stop_app}) {
      one->add_option("sandbox", sandbox, "its id, or the path of its socket")->required();
    }
    for (CLI::App* one : {flatten_app, snapshot_app, rollback_app, fork_app, info_app, pause_app,
                          resume_app, stop_app}) {
      one->add_flag("--json", control_json, "the answer as JSON, errors as well");
    }
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app.exit(error);
      std::cerr << "cube-vmm: " << error.what() << "\n";
      return cube::vmm::kStatusVmmError;
    }
    is_host = host_app->parsed();
    has_initrd = initrd->count() != 0 || template_initrd->count() != 0;
    is_flatten = flatten_app->parsed();
    is_zygote = zygote_app->parsed();
    run.attach = restore_app->parsed();
    run.serve = clone_app->parsed() || run.parked;
    run.log = run.parked;
    if (snapshot_app->parsed()) request = cube::vmm::SnapshotRequest(out, diff, true);
    if (fork_app->parsed()) request = cube::vmm::ForkRequest(count);
    if (rollback_app->parsed()) request = cube::vmm::RollbackRequest(out);
    for (CLI::App* one : {info_app, pause_app, resume_app, stop_app}) {
      if (one->parsed()) request = cube::vmm::PlainRequest(one->get_name().c_str());
    }
  }
  // The parser was the largest thing on the heap; nothing of it is needed while the VM runs.
  malloc_trim(0);
  if (!store.action.empty()) return cube::vmm::StoreCommand(store);
  if (run.attach) run.snapshot = cube::vmm::SnapshotFolder(run.snapshot);
  if (is_flatten) return cube::vmm::FlattenCommand(flatten, control_json);
  if (!request.empty()) return cube::vmm::ControlCommand(sandbox, request, control_json);
  if (is_zygote) return cube::vmm::ZygoteCommand(zygote);
  if (is_host) return cube::vmm::HostCommand(host_json);
  if (words.action == "build") run.devices.volumes = words.volumes;
  if (words.source.given()) {
    return cube::vmm::RunTemplateProgram(words.name, words.source, run, rootfs, has_initrd,
                                         words.json);
  }
  cube::Status placed = PlaceRootDisk(rootfs, has_initrd, &run);
  if (!placed.ok()) return cube::vmm::AnswerError(placed.error(), words.json);
  if (!words.action.empty()) return TemplateCommand(words, std::move(run), start);
  if (!run.snapshot.empty() && run.serve && !run.attach) {
    auto path = cube::vmm::FindTemplate(run.snapshot);
    if (!path.ok()) return cube::vmm::AnswerError(path.error(), run.json);
    run.snapshot = *path;
  }
  run.common_environment = DefaultEnvironment();
  return cube::vmm::RunCommand(run, start);
}
