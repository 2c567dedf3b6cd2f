#ifndef CUBE_API_VOLUME_API_H_
#define CUBE_API_VOLUME_API_H_

#include <memory>
#include <string>

#include "api/router.h"
#include "api/volume_files.h"
#include "api/volume_store.h"
#include "pool/node.h"

namespace cube::api {

// Routes of volumes, and of what is in them, which a volume's own token opens. On one thread.
class VolumeApi {
 public:
  // Both outlive it.
  VolumeApi(VolumeStore* store, pool::Node* node);

  // Deletes what an earlier daemon had not come to.
  void Start();
  void AddTo(Router* router);
  // Where the body of a request goes that writes a file: a place of its own, until it is whole. ""
  // if it is no such request, or may not; what is wrong is then said by its route.
  std::string UploadPath(const Request& request) const;
  bool IsUpload(const std::string& path) const { return store_->IsStaging(path); }
  // The file is whole, and is put where it belongs.
  Reply Uploaded(const Request& request, const std::string& path) const;

 private:
  using Shared = std::shared_ptr<Call>;
  Task<Answer> Create(Shared call);
  Task<Answer> List();
  Task<Answer> Info(Shared call);
  Task<Answer> Delete(Shared call);
  Task<Answer> ListFolder(Shared call);
  Task<Answer> MakeFolder(Shared call);
  Task<Answer> Look(Shared call);
  Task<Answer> Change(Shared call);
  Task<Answer> Remove(Shared call);
  Task<Answer> Read(Shared call);
  Task<Answer> Write(Shared call);

  void AddContent(Router* router);
  // What is wrong with the token of a request about files, if anything.
  std::optional<Reply> Refused(const Request& request, const std::string& volume) const;

  // As long as there is trash.
  Task<void> EmptyTrash();

  VolumeStore* store_;
  pool::Node* node_;
  bool emptying_ = false;
};

}  // namespace cube::api

#endif  // CUBE_API_VOLUME_API_H_
