package openapi

// requiredOf are the required fields of those types whose JSON tags do not tell: a field is taken for required if it has
// no omitempty, which upstream's comments (+optional, +required) sometimes contradict. TestSchemasAreUpstreams finds
// what belongs here.
var requiredOf = map[string]string{
	"io.k8s.api.apps.v1.ControllerRevision":              "data",
	"io.k8s.api.apps.v1.Deployment":                      "spec",
	"io.k8s.api.apps.v1.DeploymentCondition":             "",
	"io.k8s.api.apps.v1.DeploymentSpec":                  "selector template",
	"io.k8s.api.apps.v1.ReplicaSet":                      "spec",
	"io.k8s.api.apps.v1.ReplicaSetCondition":             "",
	"io.k8s.api.apps.v1.ReplicaSetSpec":                  "selector",
	"io.k8s.api.authentication.v1.TokenRequest":          "",
	"io.k8s.api.authentication.v1.TokenRequestSpec":      "",
	"io.k8s.api.authentication.v1.TokenRequestStatus":    "",
	"io.k8s.api.core.v1.ContainerImage":                  "",
	"io.k8s.api.core.v1.ContainerRestartRule":            "action",
	"io.k8s.api.core.v1.ContainerRestartRuleOnExitCodes": "operator",
	"io.k8s.api.core.v1.Event":                           "involvedObject metadata",
	"io.k8s.api.core.v1.EvictionResponder":               "name priority",
	"io.k8s.api.core.v1.ImageVolumeStatus":               "imageRef",
	"io.k8s.api.core.v1.NodeAllocatableMappedResources":  "name quantity",
	"io.k8s.api.core.v1.NodeRuntimeHandler":              "",
	"io.k8s.api.core.v1.PodCertificateProjection":        "keyType signerName",
	"io.k8s.api.core.v1.ProjectedVolumeSource":           "",
	"io.k8s.api.core.v1.ScaleIOPersistentVolumeSource":   "gateway secretRef system",
	"io.k8s.api.core.v1.ScaleIOVolumeSource":             "gateway secretRef system",
	"io.k8s.api.discovery.v1.EndpointSlice":              "addressType",
	"io.k8s.api.events.v1.Event":                         "eventTime",
	"io.k8s.api.networking.v1.IPAddress":                 "spec",
	"io.k8s.api.networking.v1.IPAddressSpec":             "parentRef",
	"io.k8s.api.networking.v1.ParentReference":           "name resource",
	"io.k8s.api.policy.v1.PodDisruptionBudgetStatus":     "",
	"io.k8s.api.rbac.v1.ClusterRole":                     "",
	"io.k8s.api.rbac.v1.Role":                            "",
	"io.k8s.api.rbac.v1.RoleRef":                         "kind name",
	"io.k8s.api.scheduling.v1.PriorityClass":             "",
}
