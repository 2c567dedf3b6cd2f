#include "templates/base_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <fstream>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "snapshot/json_fields.h"
#include "templates/digest.h"
#include "templates/ext4_image.h"
#include "templates/image_config.h"
#include "templates/image_source.h"
#include "templates/tree.h"

namespace cube::templates {
namespace {

// Changes when disks of older builds would not do.
constexpr const char* kVersion = "image 1";

std::string KeyOf(const ImageRequest& request, const std::string& content) {
  Sha256 sum;
  for (const std::string& part :
       {std::string(kVersion), content, request.name, std::to_string(request.size)}) {
    sum.AddField(part);
  }
  return sum.Finish();
}

Result<UniqueFd> FindCached(const std::string& path) { return OpenFile(path, O_RDONLY); }

// What an earlier build has noted beside its disk.
Result<snapshot::Defaults> ReadAbout(const std::string& path) {
  CUBE_ASSIGN(std::string text, ReadSmallFile(path, kMaxJson));
  CUBE_ASSIGN(boost::json::object object, ParseObject(text));
  return snapshot::Defaults::Read(snapshot::JsonFields(object));
}

Status WriteAbout(const std::string& path, const snapshot::Defaults& defaults) {
  JsonWriter json;
  defaults.Write(&json);
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  return WriteAll(file.get(),
                  {reinterpret_cast<const uint8_t*>(json.text().data()), json.text().size()},
                  path.c_str());
}

// Files that a container's engine, not its image, puts there.
Status FinishTree(const Tree& tree) {
  for (const char* folder : {"dev", "proc", "sys", "run", "etc", "root"}) {
    CUBE_TRY(tree.MakeFolder(folder, 0755));
  }
  auto tmp = tree.OpenFolder("tmp");
  if (!tmp.ok()) {
    CUBE_TRY(tree.MakeFolder("tmp", 0755));
    CUBE_ASSIGN(UniqueFd made, tree.OpenFolder("tmp"));
    if (fchmod(made.get(), 01777) < 0) return ErrnoError("/tmp");
  }
  struct File {
    const char* path;
    const char* content;
  };
  constexpr File kFiles[] = {
      {"etc/hostname", "cube\n"},
      {"etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"},
      {"etc/resolv.conf", ""}};
  for (const File& file : kFiles) {
    auto there = tree.OpenFileForReading(file.path);
    struct stat info;
    if (there.ok() && fstat(there->get(), &info) == 0 && info.st_size > 0) continue;
    CUBE_TRY(tree.WriteFile(file.path, file.content, 0644));
  }
  return OkStatus();
}

struct Opened {
  ImageSource source;
  std::string content;  // its digest
};

// An image in a folder, or in a tar, which is unpacked for it.
Result<Tree> OpenSource(const std::string& path, const std::string& unpack_to, int fd) {
  struct stat info;
  if (fstat(fd, &info) < 0) return ErrnoError("%s", path.c_str());
  if (S_ISDIR(info.st_mode)) return Tree::Open(path);
  if (mkdir(unpack_to.c_str(), 0700) < 0) return ErrnoError("%s", unpack_to.c_str());
  CUBE_ASSIGN(Tree tree, Tree::Open(unpack_to));
  UnpackBudget budget;
  CUBE_TRY(UnpackArchive(fd, path, ArchiveKind::kPlain, tree, &budget));
  return tree;
}

Result<ImageSource> OpenImage(const ImageRequest& request, const std::string& unpack_to, int fd) {
  CUBE_ASSIGN(Tree tree, OpenSource(request.path, unpack_to, fd));
  auto source = ImageSource::Open(std::move(tree), request.name);
  if (!source.ok()) return Error(source.error()).Wrap(request.path);
  return source;
}

Status MakeDisk(const ImageSource& source, const ImageRequest& request, const BuildFolder& folder,
                const std::string& image) {
  const std::string tree_path = folder.work() + "/tree";
  if (mkdir(tree_path.c_str(), 0755) < 0) return ErrnoError("%s", tree_path.c_str());
  CUBE_ASSIGN(Tree tree, Tree::Open(tree_path));
  UnpackBudget budget;
  if (request.size != 0) budget.bytes = std::min(budget.bytes, request.size);
  const UnpackBudget before = budget;
  CUBE_TRY(source.Unpack(tree, &budget));
  CUBE_TRY(FinishTree(tree));
  uint64_t size = request.size != 0
                      ? request.size
                      : DiskSizeFor(before.bytes - budget.bytes, before.entries - budget.entries);
  return MakeExt4(tree_path, image, size);
}

}  // namespace

std::string BaseDisk::RootfsOption() const {
  std::string option = image;
  for (const std::string& layer : layers) option += ":layer=" + layer;
  return option;
}

Result<BaseDisk> MakeImageDisk(const ImageRequest& request, const BuildFolder& folder,
                               bool* cached) {
  CUBE_ASSIGN(UniqueFd fd, OpenFile(request.path, O_RDONLY));
  struct stat info;
  if (fstat(fd.get(), &info) < 0) return ErrnoError("%s", request.path.c_str());
  std::optional<ImageSource> source;
  std::string content;
  const std::string unpacked = folder.work() + "/image";
  if (S_ISDIR(info.st_mode)) {
    CUBE_ASSIGN(source, OpenImage(request, unpacked, fd.get()));
    content = source->id();
  } else {
    CUBE_ASSIGN(content, FileSha256(fd.get(), request.path));
  }
  BaseDisk disk;
  disk.key = KeyOf(request, content);
  disk.image = folder.image(disk.key);
  const std::string about = folder.image_about(disk.key);
  auto there = FindCached(disk.image);
  auto defaults = ReadAbout(about);
  *cached = there.ok() && defaults.ok();
  if (*cached) {
    disk.defaults = std::move(*defaults);
    return disk;
  }
  if (geteuid() != 0) {
    return Errorf("an image can be unpacked by root only: its files have owners");
  }
  if (!source) {
    CUBE_ASSIGN(source, OpenImage(request, unpacked, fd.get()));
  }
  disk.defaults = source->defaults();
  const std::string made = folder.work() + "/root.ext4";
  CUBE_TRY(MakeDisk(*source, request, folder, made));
  const std::string made_about = folder.work() + "/about.json";
  CUBE_TRY(WriteAbout(made_about, disk.defaults));
  CUBE_TRY(PublishFile(made_about, about));
  CUBE_TRY(PublishFile(made, disk.image));
  return disk;
}

}  // namespace cube::templates
