#include "vmm/cli/template_command.h"

#include <cstdio>
#include <filesystem>

#include "base/json_writer.h"
#include "base/monotonic.h"
#include "snapshot/machine_sections.h"
#include "snapshot/snapshot.h"
#include "snapshot/snapshot_writer.h"
#include "vmm/cli/command_answer.h"
#include "vmm/cli/run.h"
#include "vmm/cli/template_folder.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

Status Build(const std::string& name, RunOptions options, uint64_t start) {
  CUBE_TRY(CheckTemplateName(name));
  std::string path = TemplatesFolder() + "/" + name;
  std::error_code failed;
  std::filesystem::create_directories(TemplatesFolder(), failed);
  if (failed) return Errorf("%s: %s", TemplatesFolder().c_str(), failed.message().c_str());
  snapshot::RemoveUnpublished(TemplatesFolder());
  // Not only once the machine has booted.
  if (std::filesystem::exists(std::filesystem::symlink_status(path, failed))) {
    return Errorf("there is a template \"%s\" already", name.c_str());
  }
  CUBE_TRY(options.defaults.Check());
  options.serve = options.boot = true;
  options.freeze_as = path;
  Run run(options, start);
  CUBE_ASSIGN(int status, run.Execute());
  return status == 0 ? OkStatus() : Errorf("no template was made");
}

void AddManifest(const snapshot::Manifest& manifest, JsonWriter* json) {
  json->Key("id").String(manifest.id).Key("created").String(manifest.created);
  json->Key("memory_mib").Uint(manifest.memory_bytes / kMiB).Key("cpus").Uint(manifest.cpus);
  json->Key("ring0").String(manifest.ring0);
  json->Key("parent").String(manifest.parent);
}

void AddTemplate(const TemplateInfo& info, JsonWriter* json) {
  json->Key("name").String(info.name).Key("path").String(info.path);
  json->Key("disk_bytes").Uint(info.disk_bytes);
  if (info.manifest) AddManifest(*info.manifest, json);
  if (!info.error.empty()) json->Key("error").String(info.error);
}

void PrintTable(const std::vector<TemplateInfo>& all) {
  printf("%-38s %8s %4s %-8s %9s %-20s %s\n", "NAME", "MEMORY", "CPUS", "RING0", "ON DISK",
         "CREATED", "PARENT");
  for (const TemplateInfo& info : all) {
    double mib = static_cast<double>(info.disk_bytes) / static_cast<double>(kMiB);
    if (!info.manifest) {
      printf("%-38s damaged: %s\n", info.name.c_str(), info.error.c_str());
      continue;
    }
    const snapshot::Manifest& manifest = *info.manifest;
    printf("%-38s %4llu MiB %4u %-8s %5.1f MiB %-20s %s\n", info.name.c_str(),
           static_cast<unsigned long long>(manifest.memory_bytes / kMiB), manifest.cpus,
           manifest.ring0.c_str(), mib, manifest.created.c_str(),
           manifest.parent.empty() ? "-" : manifest.parent.c_str());
  }
}

void PrintDefaults(const snapshot::Defaults& defaults) {
  if (defaults.empty()) return;
  printf("\ndefaults:      user %s, working directory %s\n",
         defaults.user.empty() ? "root" : defaults.user.c_str(),
         defaults.directory.empty() ? "/" : defaults.directory.c_str());
  for (const std::string& variable : defaults.environment) printf("  %s\n", variable.c_str());
  for (const auto* words : {&defaults.entrypoint, &defaults.command}) {
    if (words->empty()) continue;
    printf(words == &defaults.entrypoint ? "  entrypoint:" : "  command:");
    for (const std::string& word : *words) printf(" %s", word.c_str());
    printf("\n");
  }
}

const char* SectionName(snapshot::SectionTag tag) {
  switch (tag) {
    case snapshot::SectionTag::kVm:
      return "vm";
    case snapshot::SectionTag::kVcpu:
      return "vcpu";
    case snapshot::SectionTag::kSerial:
      return "serial";
    case snapshot::SectionTag::kDevice:
      return "device";
  }
  return "unknown";
}

struct Inspected {
  TemplateInfo info;
  std::vector<snapshot::Section> sections;
  std::string why_not;  // why this host cannot restore it; empty if it can
};

Result<Inspected> Inspect(const std::string& name_or_path) {
  Inspected all;
  CUBE_ASSIGN(std::string path, FindTemplate(name_or_path));
  all.info = ReadTemplate(path);
  if (!all.info.manifest) return Errorf("%s", all.info.error.c_str());
  CUBE_ASSIGN(snapshot::Snapshot opened, snapshot::Snapshot::Open(path));
  all.sections = snapshot::EncodeMachine(opened.state());
  RunOptions options;
  options.snapshot = path;
  options.serve = true;
  Status made = Run(options, MonotonicNow()).Rehearse();
  if (!made.ok()) all.why_not = made.error().message();
  return all;
}

void PrintInspected(const Inspected& all) {
  const snapshot::Manifest& manifest = *all.info.manifest;
  printf("path:          %s\nid:            %s\ncreated:       %s\n", all.info.path.c_str(),
         manifest.id.c_str(), manifest.created.c_str());
  if (!manifest.parent.empty()) {
    printf("parent:        %s, %s\n", manifest.parent.c_str(), manifest.parent_path.c_str());
  }
  printf("machine:       %llu MiB, %u vCPUs, ring 0 %s\nkernel words:  %s\ndevices:      ",
         static_cast<unsigned long long>(manifest.memory_bytes / kMiB), manifest.cpus,
         manifest.ring0.c_str(), manifest.kernel.c_str());
  for (const std::string& device : manifest.devices) printf(" %s", device.c_str());
  printf("\non disk:       %.1f MiB\nstate:        ",
         static_cast<double>(all.info.disk_bytes) / static_cast<double>(kMiB));
  for (const snapshot::Section& section : all.sections) {
    printf(" %s %u (%zu bytes)", SectionName(section.tag), section.number, section.bytes.size());
  }
  PrintDefaults(manifest.defaults);
  printf("\non this host:  %s\n", all.why_not.empty() ? "can be restored" : all.why_not.c_str());
}

std::string InspectedJson(const Inspected& all) {
  const snapshot::Manifest& manifest = *all.info.manifest;
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true);
  AddTemplate(all.info, &json);
  json.Key("parent_path").String(manifest.parent_path).Key("kernel").String(manifest.kernel);
  json.Key("devices").BeginArray();
  for (const std::string& device : manifest.devices) json.String(device);
  json.EndArray().Key("memory_file_bytes").Uint(manifest.memory_file_bytes);
  json.Key("sections").BeginArray();
  for (const snapshot::Section& section : all.sections) {
    json.BeginObject().Key("name").String(SectionName(section.tag));
    json.Key("number").Uint(section.number).Key("bytes").Uint(section.bytes.size()).EndObject();
  }
  json.EndArray().Key("defaults");
  manifest.defaults.Write(&json);
  json.Key("restorable").Bool(all.why_not.empty());
  if (!all.why_not.empty()) json.Key("reason").String(all.why_not);
  return json.EndObject().text();
}

}  // namespace

int TemplateBuildCommand(const std::string& name, RunOptions options, bool json, uint64_t start) {
  Status built = Build(name, std::move(options), start);
  if (!built.ok()) return AnswerError(built.error(), json);
  TemplateInfo info = ReadTemplate(TemplatesFolder() + "/" + name);
  if (!json) {
    printf("%s\n", info.path.c_str());
    return 0;
  }
  JsonWriter answer;
  answer.BeginObject().Key("ok").Bool(true);
  AddTemplate(info, &answer);
  answer.Key("ms").Double(Milliseconds(start, MonotonicNow())).EndObject();
  printf("%s\n", answer.text().c_str());
  return 0;
}

int TemplateListCommand(bool json) {
  auto all = ListTemplates();
  if (!all.ok()) return AnswerError(all.error(), json);
  if (!json) {
    PrintTable(*all);
    return 0;
  }
  JsonWriter answer;
  answer.BeginObject().Key("ok").Bool(true).Key("templates").BeginArray();
  for (const TemplateInfo& info : *all) {
    answer.BeginObject();
    AddTemplate(info, &answer);
    answer.EndObject();
  }
  answer.EndArray().EndObject();
  printf("%s\n", answer.text().c_str());
  return 0;
}

int TemplateInspectCommand(const std::string& name_or_path, bool json) {
  auto all = Inspect(name_or_path);
  if (!all.ok()) return AnswerError(all.error(), json);
  if (json) {
    printf("%s\n", InspectedJson(*all).c_str());
  } else {
    PrintInspected(*all);
  }
  return 0;
}

int TemplateRemoveCommand(const std::string& name, bool force, bool json) {
  Status removed = RemoveTemplate(name, force);
  if (!removed.ok()) return AnswerError(removed.error(), json);
  if (json) printf("{\"ok\":true}\n");
  return 0;
}

}  // namespace cube::vmm
