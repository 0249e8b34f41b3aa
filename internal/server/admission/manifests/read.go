package manifests

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// Suffix is how the names of objects from files end. The API refuses such names.
const Suffix = ".static.k8s.io"

// accepted are the resources that each plugin takes from its directory.
var accepted = map[string][]*api.Resource{
	ValidatingWebhooks: {api.ValidatingWebhookConfigurations},
	MutatingWebhooks:   {api.MutatingWebhookConfigurations},
	ValidatingPolicies: {api.ValidatingAdmissionPolicies, api.ValidatingAdmissionPolicyBindings},
	MutatingPolicies:   {api.MutatingAdmissionPolicies, api.MutatingAdmissionPolicyBindings},
}

// contents are what a directory says, by resource, in the order of names. The hash is another one whenever a file is; "" where there is none.
type contents struct {
	hash    string
	objects map[*api.Resource][]api.Object
}

// reader reads a directory for one plugin.
type reader struct {
	resources []*api.Resource
	decoder   *wire.Decoder
	found     map[*api.Resource][]api.Object
	from      map[string]string // the file of each object, by resource and name
}

// read returns what a directory says. It fails as a whole if any of its documents is not to be carried out.
func read(plugin, dir string) (*contents, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("failed to read manifest directory %q: %w", dir, err)
	}
	r := &reader{accepted[plugin], wire.NewDecoder(api.Scheme), map[*api.Resource][]api.Object{}, map[string]string{}}
	sum, any := sha256.New(), false
	for _, e := range entries {
		if e.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(e.Name()))) {
			continue
		}
		file := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("failed to read file %q: %w", file, err)
		}
		if len(text) == 0 {
			continue
		}
		any = true
		_, _ = sum.Write(append(text, 0))
		if err := r.file(file, text); err != nil {
			return nil, fmt.Errorf("error loading %s: %w", file, err)
		}
	}
	if err := r.bound(); err != nil {
		return nil, err
	}
	out := &contents{objects: r.found}
	if any {
		out.hash = fmt.Sprintf("sha256:%x", sum.Sum(nil))
	}
	for _, objs := range r.found {
		slices.SortFunc(objs, func(a, b api.Object) int { return strings.Compare(a.GetName(), b.GetName()) })
	}
	return out, nil
}

// file takes the documents of a file.
func (r *reader) file(file string, text []byte) error {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if doc = bytes.TrimSpace(doc); len(doc) == 0 {
			continue
		}
		if doc, err = yaml.YAMLToJSONStrict(doc); err != nil {
			return err
		}
		if err := r.document(file, doc); err != nil {
			return err
		}
	}
}

// document takes one object, or those of a list.
func (r *reader) document(file string, doc []byte) error {
	var d struct {
		metav1.TypeMeta
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		return err
	}
	gvk := d.GroupVersionKind()
	if gvk.Empty() && bytes.Equal(doc, []byte("null")) {
		return nil // comments alone
	}
	for _, res := range r.resources {
		switch {
		case gvk == res.GroupVersionKind:
			return r.object(file, res, doc)
		case gvk == res.GroupVersion().WithKind(res.Kind+"List"), gvk.GroupVersion() == api.Namespaces.GroupVersion() && gvk.Kind == "List":
			for _, item := range d.Items {
				if item, err := typed(item, gvk.Kind == "List", res); err != nil {
					return err
				} else if err := r.document(file, item); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return fmt.Errorf("unsupported resource type %s", gvk)
}

// typed gives an item of a typed list the kind that it may leave out.
func typed(item []byte, mixed bool, res *api.Resource) ([]byte, error) {
	if mixed {
		return item, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(item, &fields); err != nil {
		return nil, err
	}
	for key, value := range map[string]string{"apiVersion": res.GroupVersion().String(), "kind": res.Kind} {
		if _, given := fields[key]; !given {
			fields[key] = json.RawMessage(fmt.Sprintf("%q", value))
		}
	}
	return json.Marshal(fields)
}

// object takes an object, as if it were created over the API but for its name.
func (r *reader) object(file string, res *api.Resource, doc []byte) error {
	decoded, _, err := r.decoder.Decode(doc, wire.JSON, res.GroupVersionKind, res.New(), metav1.FieldValidationStrict)
	if err != nil {
		return err
	}
	obj := decoded.(api.Object)
	name := obj.GetName()
	if name == "" {
		return fmt.Errorf("resource in file %q must have a name", file)
	}
	if !strings.HasSuffix(name, Suffix) {
		return fmt.Errorf("%q in file %q must have a name ending with %q", name, file, Suffix)
	}
	id := res.Kind + "/" + name
	if other, twice := r.from[id]; twice {
		return fmt.Errorf("duplicate name %q found in file %q (previously seen in %q)", name, file, other)
	}
	r.from[id] = file
	if err := independent(obj, file); err != nil {
		return err
	}
	res.Default(obj)
	res.PrepareForCreate(obj)
	obj.SetName(strings.TrimSuffix(name, Suffix)) // the API's own validation refuses the suffix
	errs := res.Validate(obj)
	obj.SetName(name)
	if err := errs.ToAggregate(); err != nil {
		return fmt.Errorf("%s %q: %w", res.Kind, name, err)
	}
	r.found[res] = append(r.found[res], obj)
	return nil
}

// independent refuses what depends on objects of the cluster, which may not be there yet.
func independent(obj api.Object, file string) error {
	name := obj.GetName()
	switch o := obj.(type) {
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		for i := range o.Webhooks {
			if err := addressed(&o.Webhooks[i].ClientConfig, o.Webhooks[i].Name, name, file); err != nil {
				return err
			}
		}
	case *admissionregistrationv1.MutatingWebhookConfiguration:
		for i := range o.Webhooks {
			if err := addressed(&o.Webhooks[i].ClientConfig, o.Webhooks[i].Name, name, file); err != nil {
				return err
			}
		}
	case *admissionregistrationv1.ValidatingAdmissionPolicy:
		if o.Spec.ParamKind != nil {
			return fmt.Errorf("ValidatingAdmissionPolicy %q: spec.paramKind is not supported for static manifests", name)
		}
	case *admissionregistrationv1.MutatingAdmissionPolicy:
		if o.Spec.ParamKind != nil {
			return fmt.Errorf("MutatingAdmissionPolicy %q: spec.paramKind is not supported for static manifests", name)
		}
	case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
		return plain(name, o.Spec.PolicyName, o.Spec.ParamRef)
	case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
		return plain(name, o.Spec.PolicyName, o.Spec.ParamRef)
	}
	return nil
}

// addressed refuses a webhook that is not reached by a URL.
func addressed(c *admissionregistrationv1.WebhookClientConfig, webhook, configuration, file string) error {
	switch {
	case c.Service != nil:
		return fmt.Errorf("webhook %q in %q (file %q): clientConfig.service is not supported for static manifests; use clientConfig.url instead",
			webhook, configuration, file)
	case c.URL == nil || *c.URL == "":
		return fmt.Errorf("webhook %q in %q (file %q): clientConfig.url is required for static manifests", webhook, configuration, file)
	}
	return nil
}

// plain refuses a binding of a policy that is not from a file, or one with parameters.
func plain(binding, policy string, params *admissionregistrationv1.ParamRef) error {
	switch {
	case policy == "":
		return fmt.Errorf("binding %q must reference a policy (spec.policyName)", binding)
	case !strings.HasSuffix(policy, Suffix):
		return fmt.Errorf("binding %q: spec.policyName %q must end with %q", binding, policy, Suffix)
	case params != nil:
		return fmt.Errorf("binding %q: spec.paramRef is not supported for static manifests", binding)
	}
	return nil
}

// bound refuses bindings of policies that the directory does not have.
func (r *reader) bound() error {
	for res, policies := range map[*api.Resource]*api.Resource{
		api.ValidatingAdmissionPolicyBindings: api.ValidatingAdmissionPolicies, api.MutatingAdmissionPolicyBindings: api.MutatingAdmissionPolicies,
	} {
		for _, obj := range r.found[res] {
			var policy string
			switch b := obj.(type) {
			case *admissionregistrationv1.ValidatingAdmissionPolicyBinding:
				policy = b.Spec.PolicyName
			case *admissionregistrationv1.MutatingAdmissionPolicyBinding:
				policy = b.Spec.PolicyName
			}
			if _, there := r.from[policies.Kind+"/"+policy]; !there {
				return fmt.Errorf("binding %q references policy %q which does not exist in the manifest directory", obj.GetName(), policy)
			}
		}
	}
	return nil
}
