#include "templates/step_builder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "base/byte_io.h"
#include "base/control_abi.h"
#include "devices/blk/overlay_file.h"
#include "snapshot/manifest.h"
#include "templates/child_run.h"
#include "templates/copy_stream.h"
#include "templates/digest.h"
#include "templates/layer_merge.h"

namespace cube::templates {
namespace {

namespace fs = std::filesystem;
using ::cube::devices::blk::OverlayFile;

// Changes when layers of older builds would not do.
constexpr const char* kVersion = "layer 1";
// Files of a disk that a manifest can name, and one for what the template's guest writes.
constexpr size_t kMaxLayers = 62;
constexpr const char* kPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string KeyOf(const std::vector<std::string>& parts) {
  Sha256 sum;
  sum.AddField(kVersion);
  for (const std::string& part : parts) sum.AddField(part);
  return sum.Finish();
}

Result<std::string> FileIdentity(const std::string& path) {
  CUBE_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY));
  CUBE_ASSIGN(auto file, snapshot::OutsideFile::Of(fd.get(), path));
  return Format("%s %llu %llu %llu", path.c_str(), static_cast<unsigned long long>(file.bytes),
                static_cast<unsigned long long>(file.inode),
                static_cast<unsigned long long>(file.modified));
}

void SetVariable(const std::string& name, const std::string& value,
                 std::vector<std::string>* environment) {
  std::vector<std::string> changed = {name + "=" + value};
  auto there = std::find_if(environment->begin(), environment->end(),
                            [&](const std::string& each) { return each.starts_with(name + "="); });
  if (there != environment->end()) {
    *there = std::move(changed[0]);
  } else {
    environment->push_back(std::move(changed[0]));
  }
}

// What a START or READY hands to the shell, which is in the guest as well.
Result<std::string> ShellCommand(const Step& step) {
  if (step.words.size() == 3 && step.words[0] == "/bin/sh" && step.words[1] == "-c") {
    return step.words[2];
  }
  std::string command = "exec";
  for (const std::string& word : step.words) {
    command += " '";
    for (char c : word) command += c == '\'' ? std::string("'\\''") : std::string(1, c);
    command += "'";
  }
  return command;
}

}  // namespace

Status StepBuilder::Run(const StepList& list) {
  const size_t of = list.steps.size() + 1;
  for (size_t i = 0; i < list.steps.size(); ++i) {
    const Step& step = list.steps[i];
    parts_.progress->Begin(i + 1, of, step.text);
    bool cached = false;
    Status done = RunStep(step, &cached);
    // What the last step leaves to be done is a part of it.
    if (done.ok() && i + 1 == list.steps.size()) {
      bool rest = true;
      done = service_ ? WriteService(&rest) : folders_.empty() ? OkStatus() : Unpack({}, &rest);
      cached = cached && rest;
    }
    if (!done.ok()) {
      return Error(done.error())
          .Wrap(
              Format("step %zu of %zu (line %u: %.200s)", i + 1, of, step.line, step.text.c_str()));
    }
    parts_.progress->End(cached);
  }
  CUBE_TRY(MergeLayers(*parts_.folder, &disk_));
  return disk_.defaults.Check();
}

Status StepBuilder::RunStep(const Step& step, bool* cached) {
  switch (step.kind) {
    case StepKind::kFrom:
      return From(step.words[0], cached);
    case StepKind::kRun:
      return Command(step, cached);
    case StepKind::kCopy:
      return Copy(step, cached);
    case StepKind::kEnv:
      *cached = true;
      return SetEnvironment(step);
    case StepKind::kWorkdir:
      *cached = true;
      return SetWorkingDirectory(step.words[0]);
    case StepKind::kUser: {
      *cached = true;
      CUBE_ASSIGN(disk_.defaults.user, Expand(step.words[0]));
      return OkStatus();
    }
    case StepKind::kEntrypoint:
      *cached = true;
      disk_.defaults.entrypoint = step.words;
      disk_.defaults.command.clear();
      return OkStatus();
    case StepKind::kCmd:
      *cached = true;
      disk_.defaults.command = step.words;
      return OkStatus();
    case StepKind::kStart: {
      *cached = true;
      if (!service_) service_.emplace();
      CUBE_ASSIGN(service_->start, ShellCommand(step));
      return OkStatus();
    }
    case StepKind::kReady: {
      *cached = true;
      if (!service_) service_.emplace();
      CUBE_ASSIGN(service_->ready, ShellCommand(step));
      service_->seconds = step.seconds;
      return OkStatus();
    }
  }
  return OkStatus();
}

// A path, which has a '/'; a template; or an image of $CUBE_HOME/images.
Status StepBuilder::From(const std::string& name, bool* cached) {
  if (name.find('/') != std::string::npos) {
    const std::string path = name[0] == '/' ? name : parts_.context_path + "/" + name;
    CUBE_ASSIGN(disk_, MakeImageDisk({path, "", parts_.disk_size}, *parts_.folder, cached));
    return OkStatus();
  }
  *cached = true;
  if (parts_.disk_size != 0) {
    return Errorf("a disk's size can be chosen for a container image, not for \"%s\"",
                  name.c_str());
  }
  const std::string folder = parts_.home + "/templates/" + name;
  const std::string image = parts_.home + "/images/" + name + ".ext4";
  std::error_code failed;
  if (fs::exists(folder, failed)) return FromTemplate(folder);
  if (fs::exists(image, failed)) return FromDisk(image);
  return Errorf(
      "there is neither a template \"%s\" nor %s; a container image is named by a path, "
      "with a '/'",
      name.c_str(), image.c_str());
}

// Of its disk what was there before its machine was booted: what a guest has in memory when it is
// frozen may not be on its disk.
Status StepBuilder::FromTemplate(const std::string& folder) {
  CUBE_ASSIGN(snapshot::Manifest manifest, snapshot::Manifest::Load(folder));
  if (manifest.hardware.disks.empty()) return Errorf("template %s has no disk", folder.c_str());
  const auto& files = manifest.hardware.disks[0].files;
  std::vector<std::string> parts = {"template"};
  for (const auto& file : files) {
    CUBE_ASSIGN(UniqueFd fd, OpenFile(file.path, O_RDONLY));
    CUBE_TRY(file.Check(fd.get()));
    CUBE_ASSIGN(std::string identity, FileIdentity(file.path));
    parts.push_back(std::move(identity));
    disk_.layers.push_back(file.path);
  }
  disk_.image = disk_.layers.front();
  disk_.layers.erase(disk_.layers.begin());
  disk_.defaults = manifest.defaults;
  disk_.key = KeyOf(parts);
  return OkStatus();
}

Status StepBuilder::FromDisk(const std::string& image) {
  disk_.image = image;
  CUBE_ASSIGN(std::string identity, FileIdentity(image));
  disk_.key = KeyOf({"disk", identity});
  disk_.defaults.environment = {kPath};
  return OkStatus();
}

Result<std::string> StepBuilder::Expand(const std::string& word) const {
  return ExpandVariables(word, disk_.defaults.environment);
}

std::string StepBuilder::Absolute(const std::string& path) const {
  std::string all = path;
  if (path.empty() || path[0] != '/') {
    all = (disk_.defaults.directory.empty() ? "" : disk_.defaults.directory) + "/" + path;
  }
  const bool is_folder = all.ends_with('/') || all.ends_with("/.") || all.ends_with("/..");
  std::string normal = fs::path(all).lexically_normal().string();
  if (!is_folder || normal.ends_with('/')) return normal;
  return normal + "/";
}

Status StepBuilder::SetEnvironment(const Step& step) {
  // All values are as the environment was before this step.
  std::vector<std::string> changed = disk_.defaults.environment;
  for (size_t i = 0; i + 1 < step.words.size(); i += 2) {
    CUBE_ASSIGN(std::string value, Expand(step.words[i + 1]));
    SetVariable(step.words[i], value, &changed);
  }
  disk_.defaults.environment = std::move(changed);
  return disk_.defaults.Check();
}

Status StepBuilder::SetWorkingDirectory(const std::string& word) {
  CUBE_ASSIGN(std::string path, Expand(word));
  path = Absolute(path);
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  disk_.defaults.directory = path;
  if (path != "/") {
    folders_.push_back(
        {file_stream::Kind::kFolder, path, "", file_stream::kKeepMode, "", "", "", ""});
  }
  return OkStatus();
}

Status StepBuilder::Copy(const Step& step, bool* cached) {
  BuildContext::Request request;
  request.owner = step.chown;
  request.mode = step.chmod;
  for (size_t i = 0; i < step.words.size(); ++i) {
    CUBE_ASSIGN(std::string word, Expand(step.words[i]));
    if (i + 1 < step.words.size()) {
      request.sources.push_back(std::move(word));
    } else {
      request.destination = Absolute(word);
    }
  }
  CUBE_ASSIGN(std::vector<CopyEntry> entries, parts_.context->Resolve(request));
  return Unpack(std::move(entries), cached);
}

Status StepBuilder::Unpack(std::vector<CopyEntry> entries, bool* cached) {
  entries.insert(entries.begin(), folders_.begin(), folders_.end());
  folders_.clear();
  const std::string key = KeyOf({disk_.key, "files", DigestOf(entries)});
  CopyStream stream(parts_.context, &entries);
  GuestProgram program;
  program.arguments = {abi::kAgentProgram, "unpack"};
  program.input = [&](std::span<uint8_t> out) { return stream.Read(out); };
  return MakeLayer(key, program, cached);
}

Status StepBuilder::Command(const Step& step, bool* cached) {
  if (!folders_.empty()) {
    bool made = false;
    CUBE_TRY(Unpack({}, &made));
  }
  const snapshot::Defaults& defaults = disk_.defaults;
  std::vector<std::string> parts = {disk_.key, "run", defaults.user, defaults.directory};
  for (const auto* words : {&step.words, &defaults.environment}) {
    parts.push_back(std::to_string(words->size()));
    parts.insert(parts.end(), words->begin(), words->end());
  }
  GuestProgram program;
  program.arguments = {abi::kAgentProgram, "step", defaults.user.empty() ? "root" : defaults.user,
                       "--"};
  program.arguments.insert(program.arguments.end(), step.words.begin(), step.words.end());
  program.environment = defaults.environment;
  // That is for the guest to find, not root's.
  if (!defaults.user.empty()) snapshot::AddMissingVariables({"HOME="}, &program.environment);
  program.directory = defaults.directory;
  return MakeLayer(KeyOf(parts), program, cached);
}

// What the agent reads before it parks (base/control_abi.h).
Status StepBuilder::WriteService(bool* cached) {
  const snapshot::Defaults& defaults = disk_.defaults;
  CopyEntry file = {file_stream::Kind::kFile, abi::kWarmUpPath, "", 0644, "", "", "", ""};
  for (const std::string& text : {std::to_string(service_->seconds), defaults.user,
                                  defaults.directory, service_->start, service_->ready}) {
    file.content += text + '\0';
  }
  std::vector<std::string> environment = defaults.environment;
  snapshot::AddMissingVariables({kPath, "LANG=C.UTF-8"}, &environment);
  if (defaults.user.empty()) snapshot::AddMissingVariables({"HOME=/root"}, &environment);
  for (const std::string& variable : environment) file.content += variable + '\0';
  return Unpack({std::move(file)}, cached);
}

Status StepBuilder::FitsLayers() const {
  if (disk_.layers.size() < kMaxLayers) return OkStatus();
  return Errorf("a disk has at most %zu layers: join steps", kMaxLayers);
}

Status StepBuilder::MakeLayer(const std::string& key, const GuestProgram& program, bool* cached) {
  CUBE_TRY(FitsLayers());
  const std::string path = parts_.folder->layer(key);
  *cached = access(path.c_str(), R_OK) == 0;
  if (!*cached) {
    const std::string made = parts_.folder->work() + "/layer";
    unlink(made.c_str());
    LastLines last;
    CUBE_ASSIGN(int status, parts_.vmm->Run(disk_, made, program, [&](std::string_view text) {
      parts_.progress->Output(text);
      last.Add(text);
    }));
    if (status != 0) {
      const std::string lines = last.text();
      return Errorf("status %d%s%s", status, lines.empty() ? "" : ", its last lines:\n",
                    lines.c_str());
    }
    CUBE_ASSIGN(UniqueFd image, OpenFile(disk_.image, O_RDONLY));
    CUBE_ASSIGN(uint64_t size, RegularFileSize(image.get(), disk_.image.c_str()));
    {
      CUBE_ASSIGN(OverlayFile overlay,
                  OverlayFile::Open(made, size / 512 * 512, OverlayFile::Access::kWrite));
      CUBE_TRY(overlay.Freeze());
    }
    CUBE_TRY(PublishFile(made, path));
  }
  disk_.layers.push_back(path);
  disk_.key = key;
  return OkStatus();
}

}  // namespace cube::templates
