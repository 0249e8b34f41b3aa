package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/mount"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

func ptr[T any](v T) *T { return &v }

// dump lists what a container sees in a volume.
func dump(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	var walk func(rel string)
	walk = func(rel string) {
		entries, err := os.ReadDir(filepath.Join(dir, rel))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := filepath.Join(rel, e.Name())
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if st.IsDir() {
				walk(name)
				continue
			}
			b, _ := os.ReadFile(filepath.Join(dir, name))
			out = append(out, fmt.Sprintf("%s=%s:%o", name, b, st.Mode().Perm()))
		}
	}
	walk("")
	sort.Strings(out)
	return strings.Join(out, " ")
}

func TestWriteFilesSwapsAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	write := func(files map[string]File) bool {
		t.Helper()
		changed, err := writeFiles(dir, files, -1)
		if err != nil {
			t.Fatal(err)
		}
		return changed
	}
	one := map[string]File{"a": {Data: []byte("1"), Mode: 0o644}, "d/b": {Data: []byte("2"), Mode: 0o400}}
	if !write(one) || dump(t, dir) != "a=1:644 d/b=2:400" {
		t.Error(dump(t, dir))
	}
	before, _ := os.Readlink(filepath.Join(dir, dataLink))
	if write(one) {
		t.Error("the same files were written again")
	}
	// A process that looks while files change sees the old set or the new one: both are reached through one link.
	held, err := filepath.EvalSymlinks(filepath.Join(dir, "a"))
	if err != nil || !strings.Contains(held, before) {
		t.Error(held, err)
	}
	if !write(map[string]File{"c": {Data: []byte("3"), Mode: 0o600}}) || dump(t, dir) != "c=3:600" {
		t.Error(dump(t, dir))
	}
	if !write(nil) || dump(t, dir) != "" {
		t.Error(dump(t, dir))
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 { // ..data and its directory
		t.Errorf("left: %v", entries)
	}
	for _, bad := range []string{"../x", "/x", "..x", "a/../../x"} {
		if _, err := writeFiles(dir, map[string]File{bad: {}}, -1); err == nil {
			t.Errorf("file name %q was taken", bad)
		}
	}
}

type source struct {
	cm, secret map[string]string
	tokens     int
}

func (s *source) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if s.cm == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
	}
	return &corev1.ConfigMap{Data: s.cm, BinaryData: map[string][]byte{"bin": {1}}}, nil
}

func (s *source) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if s.secret == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	out := &corev1.Secret{Data: map[string][]byte{}}
	for k, v := range s.secret {
		out.Data[k] = []byte(v)
	}
	return out, nil
}

func (s *source) Claim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumeclaims"}, name)
}

func (s *source) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumes"}, name)
}

func (s *source) Services(context.Context, string) ([]*corev1.Service, error) { return nil, nil }

func (s *source) Token(context.Context, *corev1.Pod, *corev1.ServiceAccountTokenProjection) (string, time.Time, error) {
	s.tokens++
	return fmt.Sprint("token", s.tokens), time.Unix(int64(s.tokens), 0), nil
}

func (s *source) TrustAnchors(_ context.Context, p *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	return []byte("anchors of " + *p.Name), nil
}

func (s *source) Certificate(_ context.Context, _ *corev1.Pod, volume string, source int, p *corev1.PodCertificateProjection) (key, chain []byte, renew time.Time, err error) {
	if s.tokens > 0 {
		return nil, nil, renew, errors.New("credential bundle is not issued yet")
	}
	return fmt.Appendf(nil, "key %s %d", volume, source), []byte(" chain of " + p.SignerName), time.Unix(7, 0), nil
}

func podWith(v corev1.VolumeSource) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "uid-1", Labels: map[string]string{"l": "v"}},
		Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: v}}, Containers: []corev1.Container{{Name: "c"}}}}
}

func TestFileVolumes(t *testing.T) {
	name := corev1.LocalObjectReference{Name: "x"}
	for _, tc := range []struct {
		title string
		v     corev1.VolumeSource
		src   source
		want  string
	}{
		{"config map", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name}}, source{cm: map[string]string{"k": "v"}}, "bin=\x01:644 k=v:644"},
		{"items", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name, DefaultMode: ptr(int32(0o600)),
			Items: []corev1.KeyToPath{{Key: "k", Path: "d/f", Mode: ptr(int32(0o640))}, {Key: "k", Path: "g"}}}}, source{cm: map[string]string{"k": "v"}}, "d/f=v:640 g=v:600"},
		{"missing key", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: name, Items: []corev1.KeyToPath{{Key: "no", Path: "f"}}}},
			source{cm: map[string]string{}}, `error: MountVolume.SetUp failed for volume "v" : configmap references non-existent configmap key: no`},
		{"missing", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "x"}}, source{}, `error: MountVolume.SetUp failed for volume "v" : secrets "x" not found`},
		{"missing but optional", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "x", Optional: ptr(true)}}, source{}, ""},
		{"projected", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: ptr(int32(0o444)), Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: name}}, {ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "ns", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}}}}},
			source{secret: map[string]string{"s": "1"}}, "ns=ns:444 s=1:444 token=token1:444"},
		{"another kind", corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{}}, source{},
			`error: MountVolume.SetUp failed for volume "v" : iscsi is not supported yet; use persistentVolumeClaim, ephemeral, csi, nfs, emptyDir, hostPath, configMap, secret, downwardAPI, projected or image`},
	} {
		d := &Disk{Dir: t.TempDir()}
		m, renew, err := d.Setup(t.Context(), podWith(tc.v), &tc.src, podspec.Facts{})
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			got = dump(t, m["v"].HostPath)
			if !m["v"].ReadOnly || (tc.src.tokens > 0) == renew.IsZero() {
				t.Errorf("%s: %+v renew %v", tc.title, m, renew)
			}
		}
		if got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.title, got, tc.want)
		}
		if err := d.Teardown(t.Context(), "uid-1"); err != nil || len(d.Pods()) != 0 {
			t.Errorf("%s: teardown %v, left %v", tc.title, err, d.Pods())
		}
	}
}

func TestTokenOfOneUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("chown needs root")
	}
	pod := podWith(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}})
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1234))}
	d := &Disk{Dir: t.TempDir()}
	m, _, err := d.Setup(t.Context(), pod, &source{}, podspec.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(m["v"].HostPath, "token"), &st); err != nil || st.Uid != 1234 || st.Mode&0o777 != 0o600 {
		t.Errorf("%+v %v", st, err)
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		kind corev1.HostPathType
		want string
	}{
		{dir, "", ""}, {filepath.Join(dir, "none"), "", ""}, {dir, corev1.HostPathDirectory, ""}, {file, corev1.HostPathFile, ""},
		{file, corev1.HostPathDirectory, "is not a directory"}, {dir, corev1.HostPathFile, "is not a file"}, {filepath.Join(dir, "no"), corev1.HostPathDirectory, "is not a directory"},
		{filepath.Join(dir, "new/dir"), corev1.HostPathDirectoryOrCreate, ""}, {filepath.Join(dir, "newfile"), corev1.HostPathFileOrCreate, ""},
		{file, corev1.HostPathSocket, "is not a socket"}, {"/dev/null", corev1.HostPathCharDev, ""}, {"/dev/null", corev1.HostPathBlockDev, "is not a block device"},
	} {
		err := hostPath(&corev1.HostPathVolumeSource{Path: tc.path, Type: &tc.kind})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s as %q: %v, want %q", tc.path, tc.kind, err, tc.want)
		}
	}
}

func TestSecretsStayInMemory(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	d := &Disk{Dir: filepath.Join(dir, "pods"), Memory: filepath.Join(dir, "memory")}
	defer func() {
		if err := mount.UnmountBelow(dir); err != nil {
			t.Error(err)
		}
	}()
	pod := podWith(corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
	}})
	for range 2 { // the second time, as after a restart, the tmpfs is there already
		d = &Disk{Dir: d.Dir, Memory: d.Memory}
		vols, _, err := d.Setup(t.Context(), pod, &source{}, podspec.Facts{})
		if err != nil {
			t.Fatal(err)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(filepath.Join(vols["v"].HostPath, "name"), &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
			t.Errorf("%s lies on a file system of type %x, want tmpfs; %v", vols["v"].HostPath, fs.Type, err)
		}
	}
	all, err := os.ReadFile("/proc/self/mountinfo")
	if n := strings.Count(string(all), " "+d.Memory+" "); n != 1 || err != nil {
		t.Errorf("want one mount at %s, got %d, %v", d.Memory, n, err)
	}
	if err := d.Teardown(t.Context(), "uid-1"); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{d.Dir, d.Memory} {
		if left, err := os.ReadDir(where); err != nil || len(left) != 0 {
			t.Errorf("after Teardown %s holds %v, %v", where, left, err)
		}
	}
}

func TestImagesAreMountedByTheRuntime(t *testing.T) {
	d := &Disk{Dir: t.TempDir()}
	pod := podWith(corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "files:1"}})
	vols, _, err := d.Setup(t.Context(), pod, &source{}, podspec.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "m"}, {Name: "v", MountPath: "/n", SubPathExpr: "$(DIR)/x"}}
	got, err := d.Mounts(pod, c, vols, []*cri.KeyValue{{Key: "DIR", Value: []byte("d")}})
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	for i, want := range []*cri.Mount{{ContainerPath: "/m"}, {ContainerPath: "/n", ImageSubPath: "d/x"}} {
		m := got[i]
		if m.ContainerPath != want.ContainerPath || m.ImageSubPath != want.ImageSubPath || m.Image.GetImage() != "files:1" || !m.Readonly || m.HostPath != "" {
			t.Errorf("mount %d: %v", i, m)
		}
	}
}

func TestSubPathStaysInside(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	d := &Disk{Dir: t.TempDir()}
	pod := podWith(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	vols, _, err := d.Setup(t.Context(), pod, &source{}, podspec.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Teardown(t.Context(), "uid-1"); err != nil {
			t.Error(err)
		}
	}()
	dir := vols["v"].HostPath
	for name, to := range map[string]string{"out": "/etc", "up": "../../..", "in": "real"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &pod.Spec.Containers[0]
	mount := func(sub, expr string) (*cri.Mount, error) {
		c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/m", SubPath: sub, SubPathExpr: expr}}
		m, err := d.Mounts(pod, c, vols, []*cri.KeyValue{{Key: "A", Value: []byte("made")}, {Key: "UP", Value: []byte("../x")}})
		if err != nil {
			return nil, err
		}
		return m[0], nil
	}
	for _, bad := range []string{"out", "up", "out/passwd"} {
		if m, err := mount(bad, ""); err == nil {
			t.Errorf("subPath %s was mounted at %s", bad, m.HostPath)
		}
	}
	if _, err := mount("", "$(UP)"); err == nil {
		t.Error("subPathExpr left the volume")
	}
	if _, err := mount("", "$(NOPE)"); err == nil || !strings.Contains(err.Error(), `"NOPE"`) {
		t.Errorf("unknown variable: %v", err)
	}
	for i := 0; i < 2; i++ { // the second time over the first, as after a restart
		m, err := mount("file", "")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(m.HostPath); string(b) != "x" {
			t.Errorf("%q %v", b, err)
		}
	}
	m, err := mount("", "$(A)/deep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.HostPath, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "made/deep/f")); err != nil {
		t.Error(err)
	}
}

// withUmask runs do as an agent whose files are private by default, as a service manager may start it.
func withUmask(t *testing.T, do func()) {
	t.Helper()
	defer unix.Umask(unix.Umask(0o077))
	do()
}

func modeOf(t *testing.T, path string) os.FileMode {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Mode() & (os.ModePerm | os.ModeSetgid)
}

// What the node makes in a volume is for the container's user, who need not be root.
func TestWhatIsMadeInAVolumeHasTheVolumesMode(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	host := t.TempDir()
	if err := os.Chmod(host, 0o771); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		source corev1.VolumeSource
		group  *int64
		want   os.FileMode
	}{
		"emptyDir":            {source: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, want: 0o777},
		"emptyDir of a group": {source: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, group: ptr(int64(7)), want: 0o777 | os.ModeSetgid},
		"emptyDir in memory": {
			source: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}, group: ptr(int64(7)), want: 0o777 | os.ModeSetgid},
		"hostPath": {source: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: host}}, want: 0o771},
	} {
		t.Run(name, func(t *testing.T) {
			d := &Disk{Dir: t.TempDir()}
			pod := podWith(tc.source)
			if tc.group != nil {
				pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: tc.group}
			}
			c := &pod.Spec.Containers[0]
			c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/m", SubPath: "a/b"}}
			defer func() {
				if err := d.Teardown(t.Context(), "uid-1"); err != nil {
					t.Error(err)
				}
			}()
			withUmask(t, func() {
				vols, _, err := d.Setup(t.Context(), pod, &source{}, podspec.Facts{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Mounts(pod, c, vols, nil); err != nil {
					t.Fatal(err)
				}
				for _, dir := range []string{"", "a", "a/b"} {
					if got := modeOf(t, filepath.Join(vols["v"].HostPath, dir)); got != tc.want {
						t.Errorf("%q has mode %v, want the volume's, %v", dir, got, tc.want)
					}
				}
			})
		})
	}
}

// Optional is honoured where a volume is used, too: a key that is missing is an empty directory, until it is there.
func TestSubPathOfAMissingKey(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, sub := range []string{"later", "deep/later"} {
		d := &Disk{Dir: t.TempDir()}
		pod := podWith(corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}, Optional: ptr(true), Items: []corev1.KeyToPath{{Key: "later", Path: sub}}}})
		src := &source{}
		c := &pod.Spec.Containers[0]
		c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/m", SubPath: sub}}
		mount := func() string {
			t.Helper()
			vols, _, err := d.Setup(t.Context(), pod, src, podspec.Facts{})
			if err != nil {
				t.Fatal(err)
			}
			m, err := d.Mounts(pod, c, vols, nil)
			if err != nil {
				t.Fatalf("%s: a container that mounts a key which is missing and optional: %v", sub, err)
			}
			return m[0].HostPath
		}
		if st, err := os.Stat(mount()); err != nil || !st.IsDir() {
			t.Errorf("%s: %v %v, want an empty directory", sub, st, err)
		}
		src.cm = map[string]string{"later": "x"}
		if b, err := os.ReadFile(mount()); string(b) != "x" {
			t.Errorf("%s: %q %v once the key is there", sub, b, err)
		}
		if err := d.Teardown(t.Context(), "uid-1"); err != nil {
			t.Error(err)
		}
	}
}

func TestRefers(t *testing.T) {
	pod := podWith(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "ca"}}},
		{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
		{DownwardAPI: &corev1.DownwardAPIProjection{}},
		{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr("b")}},
	}}})
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "w", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "tls"}}})
	want := []Ref{{ConfigMap, "ca"}, {Secret, "s"}, {ClusterTrustBundle, ""}, {Secret, "tls"}}
	if got := Refs(pod); !slices.Equal(got, want) {
		t.Errorf("built from %v, want %v", got, want)
	}
	if !Refers(pod, Ref{ConfigMap, "ca"}) || Refers(pod, Ref{ConfigMap, "x"}) || Refers(pod, Ref{Secret, "ca"}) || Refers(pod, Ref{Kind: PodCertificateRequest}) {
		t.Error("Refers is not what Refs says")
	}
	certified := podWith(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{PodCertificate: &corev1.PodCertificateProjection{}}}}})
	if !Refers(certified, Ref{Kind: PodCertificateRequest}) {
		t.Error("a pod with a certificate does not hear of the answer")
	}
}

func TestTrustAndCertificatesAreFiles(t *testing.T) {
	pod := podWith(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{Name: ptr("b"), Path: "ca/b.pem"}},
		{PodCertificate: &corev1.PodCertificateProjection{SignerName: "s", CredentialBundlePath: "both.pem"}},
		{PodCertificate: &corev1.PodCertificateProjection{SignerName: "s", KeyPath: "key.pem", CertificateChainPath: "chain.pem"}},
	}}})
	d := &Disk{Dir: t.TempDir()}
	m, renew, err := d.Setup(t.Context(), pod, &source{}, podspec.Facts{})
	if err != nil || !renew.Equal(time.Unix(7, 0)) {
		t.Fatalf("renew at %v: %v", renew, err)
	}
	want := "both.pem=key v 1 chain of s:644 ca/b.pem=anchors of b:644 chain.pem= chain of s:644 key.pem=key v 2:644"
	if got := dump(t, m["v"].HostPath); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if _, _, err := d.Setup(t.Context(), pod, &source{tokens: 1}, podspec.Facts{}); err == nil || !strings.Contains(err.Error(), "not issued yet") {
		t.Errorf("a certificate that is not there: %v", err)
	}
}
