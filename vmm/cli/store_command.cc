#include "vmm/cli/store_command.h"

#include <sys/stat.h>

#include <cstdio>

#include "base/json_writer.h"
#include "snapshot/page_store.h"
#include "snapshot/snapshot_writer.h"
#include "vmm/cli/command_answer.h"
#include "vmm/cli/cube_home.h"

namespace cube::vmm {
namespace {

using snapshot::PageStore;
using snapshot::Snapshot;

// What was done, as JSON and for people.
struct Report {
  JsonWriter json;
  std::string text;
  int status = 0;
};

unsigned long long Long(uint64_t value) { return value; }

Status Add(PageStore* store, const std::string& path, Report* report) {
  CUBE_ASSIGN(Snapshot snapshot, Snapshot::Open(path));
  CUBE_ASSIGN(PageStore::Added added, store->Add(snapshot));
  report->json.Key("id").String(snapshot.manifest().id).Key("path").String(added.path);
  report->json.Key("added").Bool(added.is_new).Key("chunks").Uint(added.chunks);
  report->json.Key("new_chunks").Uint(added.stored).Key("new_bytes").Uint(added.written);
  report->text = Format("%s\n", added.path.c_str());
  return OkStatus();
}

Status Count(PageStore* store, Report* report) {
  CUBE_ASSIGN(PageStore::Stats stats, store->Count());
  const std::pair<const char*, uint64_t> figures[] = {
      {"snapshots", stats.snapshots},
      {"packs", stats.packs},
      {"chunks", stats.chunks},
      {"file_bytes", stats.file_bytes},
      {"chunk_bytes", stats.raw_bytes},
      {"snapshot_bytes", stats.image_bytes},
      {"unused_chunks", stats.unused_chunks},
      {"unused_bytes", stats.unused_bytes},
  };
  for (auto [name, value] : figures) {
    report->json.Key(name).Uint(value);
    report->text += Format("%-15s %llu\n", name, Long(value));
  }
  return OkStatus();
}

Status Collect(PageStore* store, Report* report) {
  CUBE_ASSIGN(PageStore::Collected collected, store->Gc());
  report->json.Key("packs_deleted").Uint(collected.packs_deleted);
  report->json.Key("packs_written").Uint(collected.packs_written);
  report->json.Key("chunks_deleted").Uint(collected.chunks_deleted);
  report->json.Key("bytes_freed").Uint(collected.bytes_freed);
  report->text = Format("%llu chunks deleted, %llu bytes freed\n", Long(collected.chunks_deleted),
                        Long(collected.bytes_freed));
  return OkStatus();
}

Status Verify(PageStore* store, Report* report) {
  CUBE_ASSIGN(std::vector<std::string> problems, store->Verify());
  report->json.Key("damaged").BeginArray();
  for (const std::string& problem : problems) {
    report->json.String(problem);
    report->text += problem + "\n";
  }
  report->json.EndArray();
  report->status = problems.empty() ? 0 : 1;
  return OkStatus();
}

Status Flatten(const std::string& path, const std::string& out, Report* report) {
  CUBE_ASSIGN(Snapshot opened, Snapshot::Open(path));
  snapshot::Manifest about = opened.manifest();
  about.id.clear();
  about.parent.clear();
  about.parent_path.clear();
  about.cold = false;
  CUBE_ASSIGN(snapshot::SnapshotWriter writer,
              snapshot::SnapshotWriter::Create(out, std::move(about)));
  CUBE_TRY(writer.WriteFlat(opened));
  CUBE_TRY(writer.WriteDisks(opened.disks(), nullptr));
  CUBE_ASSIGN(std::string id, writer.Publish(true));
  report->json.Key("id").String(id).Key("path").String(out);
  return OkStatus();
}

Status Carry(const StoreOptions& options, Report* report) {
  std::string folder = SnapshotFolder(options.argument);
  if (options.action == "flatten") return Flatten(folder, options.out, report);
  CUBE_ASSIGN(PageStore store, PageStore::Open(StoreRoot()));
  if (options.action == "add") return Add(&store, folder, report);
  if (options.action == "rm") return store.Remove(options.argument);
  if (options.action == "stats") return Count(&store, report);
  if (options.action == "gc") return Collect(&store, report);
  return Verify(&store, report);
}

}  // namespace

std::string StoreRoot() { return CubeHome() + "/store"; }

std::string SnapshotFolder(const std::string& name) {
  struct stat info;
  bool is_id = name.size() == 32 && name.find('/') == std::string::npos;
  if (!is_id || stat(name.c_str(), &info) == 0) return name;
  return StoreRoot() + "/snapshots/" + name;
}

int StoreCommand(const StoreOptions& options) {
  Report report;
  report.json.BeginObject().Key("ok").Bool(true);
  Status done = Carry(options, &report);
  if (!done.ok()) return AnswerError(done.error(), options.json);
  report.json.EndObject();
  fputs(options.json ? (report.json.text() + "\n").c_str() : report.text.c_str(), stdout);
  return report.status;
}

}  // namespace cube::vmm
