#ifndef CUBE_API_OPENAPI_TEXT_H_
#define CUBE_API_OPENAPI_TEXT_H_

namespace cube::api {

// openapi.json: all routes, with what they take and answer (OpenAPI 3.0).
extern const char kOpenApiText[];

}  // namespace cube::api

#endif  // CUBE_API_OPENAPI_TEXT_H_
