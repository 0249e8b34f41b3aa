package lifecycle

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestRecursiveReadOnly(t *testing.T) {
	mode := func(m corev1.RecursiveReadOnlyMode) *corev1.RecursiveReadOnlyMode { return &m }
	private, slave := corev1.MountPropagationNone, corev1.MountPropagationHostToContainer
	for _, tt := range []struct {
		name      string
		mount     corev1.VolumeMount
		supported bool
		want      bool
		err       string
	}{
		{name: "not asked for", mount: corev1.VolumeMount{ReadOnly: true}, supported: true},
		{name: "disabled", mount: corev1.VolumeMount{RecursiveReadOnly: mode("Disabled")}, supported: true},
		{name: "if possible, and it is", mount: corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: mode("IfPossible")}, supported: true, want: true},
		{name: "if possible, and it is not", mount: corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: mode("IfPossible")}},
		{name: "enabled", mount: corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: mode("Enabled"), MountPropagation: &private}, supported: true, want: true},
		{name: "enabled, and not possible", mount: corev1.VolumeMount{Name: "v", ReadOnly: true, RecursiveReadOnly: mode("Enabled")},
			err: `volume "v" requested recursive read-only mode, but it is not supported by the runtime`},
		{name: "of a mount that is written to", mount: corev1.VolumeMount{Name: "v", RecursiveReadOnly: mode("IfPossible")}, supported: true,
			err: `volume "v" requested recursive read-only mode, but it is not read-only`},
		{name: "of a mount that others add to", mount: corev1.VolumeMount{Name: "v", ReadOnly: true, RecursiveReadOnly: mode("Enabled"), MountPropagation: &slave}, supported: true,
			err: `volume "v" requested recursive read-only mode, but it is not compatible with propagation "HostToContainer"`},
		{name: "of another time", mount: corev1.VolumeMount{Name: "v", ReadOnly: true, RecursiveReadOnly: mode("Later")}, supported: true,
			err: `volume "v": unknown recursive read-only mode "Later"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := RecursiveReadOnly(&tt.mount, tt.supported)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("%v, %v; want %v, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestStatusNamesTheMounts(t *testing.T) {
	possible := corev1.RecursiveReadOnlyIfPossible
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", VolumeMounts: []corev1.VolumeMount{
		{Name: "data", MountPath: "/data"}, {Name: "keys", MountPath: "/keys", ReadOnly: true}, {Name: "tree", MountPath: "/tree", ReadOnly: true, RecursiveReadOnly: &possible},
	}}}}}
	for _, supported := range []bool{false, true} {
		in := Input{Pod: pod, Observed: &Observed{}, Memory: &Memory{}, Node: Node{RecursiveReadOnly: supported}}
		got := Status(in, nil).ContainerStatuses[0].VolumeMounts
		want := map[string]corev1.RecursiveReadOnlyMode{"data": "", "keys": "Disabled", "tree": "Disabled"}
		if supported {
			want["tree"] = "Enabled"
		}
		if len(got) != len(want) {
			t.Fatalf("%d mounts in the status, want %d", len(got), len(want))
		}
		for i, m := range got {
			var mode corev1.RecursiveReadOnlyMode
			if m.RecursiveReadOnly != nil {
				mode = *m.RecursiveReadOnly
			}
			spec := pod.Spec.Containers[0].VolumeMounts[i]
			if m.Name != spec.Name || m.MountPath != spec.MountPath || m.ReadOnly != spec.ReadOnly || mode != want[m.Name] {
				t.Errorf("supported %v: mount %+v has mode %q, want %q", supported, m, mode, want[m.Name])
			}
		}
	}
}
