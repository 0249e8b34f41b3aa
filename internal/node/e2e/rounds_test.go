package e2e

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// shared gives all containers an emptyDir at /d.
func shared(p *corev1.Pod) {
	p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			list[i].VolumeMounts = []corev1.VolumeMount{{Name: "d", MountPath: "/d"}}
		}
	}
}

func script(name, text string) corev1.Container {
	return corev1.Container{Name: name, Image: testImage, Command: []string{"/bin/sh", "-c", text}}
}

// All containers restart in the same sandbox when one exits with the code of its rule; what they wrote stays (KEP-5532).
func testRestartOfAll(w *world) {
	never := corev1.ContainerRestartPolicyNever
	p := pod("all", "cat /d/*; if [ -e /d/second ]; then sleep 1000; fi; while [ ! -e /d/other ]; do sleep 0.1; done; touch /d/second; exit 42", func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.RestartPolicy = &never
		c.RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
		p.Spec.Containers = append(p.Spec.Containers, script("other", "trap '' TERM; touch /d/other; while true; do sleep 1; done"))
		p.Spec.InitContainers = []corev1.Container{script("init", "echo init >> /d/runs")}
		shared(p)
	})
	w.create(p)
	restarted := func(p *corev1.Pod) bool {
		if !running(p) {
			return false
		}
		for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if s.RestartCount != 1 {
				return false
			}
		}
		return true
	}
	now := w.until("all", "running again", restarted)
	w.is(w.logs("all", func(o *corev1.PodLogOptions) { o.Container = "c" }), "init\ninit")
	for _, s := range now.Status.ContainerStatuses {
		if last := s.LastTerminationState.Terminated; last == nil || last.ExitCode != map[string]int32{"c": 42, "other": 137}[s.Name] {
			w.t.Errorf("%s ended before with %+v", s.Name, last)
		}
	}
	w.delete("all")
}

// A variable comes from a file that an init container wrote (KEP-3721), and from no file outside the volume.
func testEnvFiles(w *world) {
	yes := true
	from := func(name, path, key string, optional *bool) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FileKeyRef: &corev1.FileKeySelector{VolumeName: "d", Path: path, Key: key, Optional: optional}}}
	}
	with := func(text string, env ...corev1.EnvVar) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{script("init", text)}
			shared(p)
			p.Spec.Containers[0].Env = env
		}
	}
	out, _ := w.script(pod("envfile", "echo $A-$B-$C-$D-", with(`mkdir /d/x; echo "# made here" > /d/x/env; echo "A='one'" >> /d/x/env; echo "B='two'" >> /d/x/env`,
		from("A", "x/env", "A", nil), from("B", "x/env", "B", &yes), from("C", "x/env", "C", &yes), from("D", "none", "D", &yes))))
	w.is(out, "one-two---")
	w.delete("envfile")
	w.create(pod("noenv", "true", with("true", from("A", "none", "A", nil))))
	w.until("noenv", "waiting", func(p *corev1.Pod) bool {
		if p == nil || len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
			return false
		}
		s := p.Status.ContainerStatuses[0].State.Waiting
		return s.Reason == "CreateContainerConfigError" && strings.Contains(s.Message, "env file")
	})
	w.delete("noenv")
}
