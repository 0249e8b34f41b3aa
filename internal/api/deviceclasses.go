package api

import (
	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/resource"
	resourcevalidation "k8s.io/kubernetes/pkg/apis/resource/validation"
)

// DeviceClasses are resource.k8s.io/v1 classes of devices, which administrators define and claims name (KEP-4381).
var DeviceClasses = declare(kind[resourcev1.DeviceClass, resource.DeviceClass, resourcev1.DeviceClassList]{
	Resource: Resource{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("DeviceClass"),
		Plural:           "deviceclasses", Singular: "deviceclass",
		Prefix: "deviceclasses", AnswersDeleted: true,
	},
	prepareCreate: func(c *resource.DeviceClass) { c.Generation = 1 },
	prepareUpdate: func(c, old *resource.DeviceClass, _ string) {
		if !apiequality.Semantic.DeepEqual(c.Spec, old.Spec) {
			c.Generation = old.Generation + 1
		}
	},
	validate: resourcevalidation.ValidateDeviceClass,
	validateUpdate: func(c, old *resource.DeviceClass, _ string) field.ErrorList {
		return resourcevalidation.ValidateDeviceClassUpdate(c, old)
	},
})
