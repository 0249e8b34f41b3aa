package devices

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
)

// Claim is a claim that is prepared, or is being.
type Claim struct {
	Namespace, Name string
	UID             types.UID
	Pods            []types.UID
	Drivers         []string            // of all its devices
	Prepared        map[string][]Device // by driver; those that have not answered yet are not in it
}

// Device is what a driver has prepared for a claim.
type Device struct {
	Requests   []string // of the claim that it is for; none: for all
	Pool, Name string
	CDI        []string // ids of container device interface specifications
}

func (c *Claim) wire() *dra.Claim {
	return &dra.Claim{Namespace: c.Namespace, Uid: string(c.UID), Name: c.Name}
}

// load reads the claims from file; there are none if it is not there.
func load(file string) (map[types.UID]*Claim, error) {
	claims := map[types.UID]*Claim{}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return claims, nil
	}
	if err != nil {
		return nil, err
	}
	return claims, json.Unmarshal(b, &claims)
}

// store writes claims to file, all or nothing.
func store(file string, claims map[types.UID]*Claim) error {
	b, err := json.Marshal(claims)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // is gone after Rename
	_, err = tmp.Write(b)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}

// idsFor returns the CDI ids, each once, of the devices that a container's resources.claims name: all of a claim, or those of one request.
func idsFor(pod *corev1.Pod, c *corev1.Container, claims map[types.UID]*Claim) []string {
	var out []string
	for _, want := range c.Resources.Claims {
		i := slices.IndexFunc(pod.Spec.ResourceClaims, func(e corev1.PodResourceClaim) bool { return e.Name == want.Name })
		if i < 0 {
			continue
		}
		name, _, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil || name == nil {
			continue
		}
		for _, claim := range claims {
			if claim.Namespace != pod.Namespace || claim.Name != *name || !slices.Contains(claim.Pods, pod.UID) {
				continue
			}
			for _, driver := range claim.Drivers {
				for _, d := range claim.Prepared[driver] {
					if serves(&d, want.Request) {
						out = append(out, d.CDI...)
					}
				}
			}
		}
	}
	var once []string
	for _, id := range out {
		if !slices.Contains(once, id) {
			once = append(once, id)
		}
	}
	return once
}

// serves reports whether a device is for a request, or any if that is "". What was chosen of alternatives is called REQUEST/ALTERNATIVE.
func serves(d *Device, request string) bool {
	if request == "" || len(d.Requests) == 0 {
		return true
	}
	return slices.ContainsFunc(d.Requests, func(r string) bool { return r == request || strings.HasPrefix(r, request+"/") })
}
