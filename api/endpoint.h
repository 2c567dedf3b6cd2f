#ifndef CUBE_API_ENDPOINT_H_
#define CUBE_API_ENDPOINT_H_

#include <memory>
#include <optional>
#include <string>

#include "api/control_plane.h"
#include "api/gate.h"
#include "api/gateway.h"
#include "api/key_store.h"
#include "api/metrics_sampler.h"
#include "api/router.h"
#include "api/server.h"
#include "api/template_builder.h"
#include "api/template_catalog.h"
#include "api/volume_store.h"
#include "pool/node.h"
#include "pool/request_fields.h"

namespace cube::api {

// All that a node says over HTTP: the control plane of E2B's protocol, and the way to servers in
// sandboxes, on one address. On the node's thread.
class Endpoint {
 public:
  // `node` outlives it, and has its configuration.
  static Result<std::unique_ptr<Endpoint>> Create(pool::Node* node);

  // As the configuration says, which may be not at all.
  Status Listen();
  // The node's configuration is another: limits, keys and certificates are as it says; the address
  // stays.
  Status Reload();
  void Close();
  // Where it listens; "" if it does not.
  const std::string& address() const { return server_.address(); }

  // The operations key.create, key.list and key.revoke of the control socket.
  pool::Outcome<std::string> KeyOperation(const std::string& op, pool::RequestFields* fields);

 private:
  Endpoint(pool::Node* node, pool::Database database);
  Status Open();
  Handlers MakeHandlers();
  Task<Reply> Carry(Request request);

  pool::Node* node_;
  pool::Database database_;
  std::optional<KeyStore> keys_;
  std::optional<TemplateCatalog> catalog_;
  std::unique_ptr<Gate> gate_;
  Gateway gateway_;
  MetricsSampler sampler_;
  std::optional<Router> router_;
  std::optional<TemplateBuilder> builder_;
  std::optional<VolumeStore> volumes_;
  std::optional<ControlPlane> control_;
  Server server_;
};

}  // namespace cube::api

#endif  // CUBE_API_ENDPOINT_H_
