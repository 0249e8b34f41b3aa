package api

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	jobutil "k8s.io/kubernetes/pkg/api/job"
	podutil "k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/utils/ptr"
)

// Jobs are batch/v1 jobs.
var Jobs = declare(kind[batchv1.Job, batch.Job, batchv1.JobList]{
	Resource: Resource{
		GroupVersionKind: batchv1.SchemeGroupVersion.WithKind("Job"),
		Plural:           "jobs", Singular: "job", Categories: []string{"all"},
		Namespaced: true, Prefix: "jobs", Status: true, LeavesDependents: true,
	},
	prepareCreate: func(j *batch.Job) {
		if !ptr.Deref(j.Spec.ManualSelector, false) {
			selectOwnPods(j)
		}
		labelAsPods(j)
		j.Status = batch.JobStatus{}
		j.Generation = 1
		jobutil.DropDisabledFields(&j.Spec, nil)
		podutil.DropDisabledTemplateFields(&j.Spec.Template, nil)
	},
	prepareUpdate: func(j, old *batch.Job, sub string) {
		if sub == "status" {
			j.Spec = old.Spec
			labelAsPods(j)
			return
		}
		labelAsPods(j)
		j.Status = old.Status
		jobutil.DropDisabledFields(&j.Spec, &old.Spec)
		podutil.DropDisabledTemplateFields(&j.Spec.Template, &old.Spec.Template)
		if !apiequality.Semantic.DeepEqual(j.Spec, old.Spec) {
			j.Generation = old.Generation + 1
		}
	},
	validate: func(j *batch.Job) field.ErrorList { return batchvalidation.ValidateJobCreate(j, jobOptions(j, nil)) },
	validateUpdate: func(j, old *batch.Job, sub string) field.ErrorList {
		if sub == "status" {
			return batchvalidation.ValidateJobUpdateStatus(j, old, jobStatusOptions(j, old))
		}
		return batchvalidation.ValidateJobUpdate(j, old, jobOptions(j, old))
	},
	warnings: func(j, old *batch.Job) []string {
		if old == nil {
			return append(nameWarning(j.Name, "Pod names and hostnames"), jobWarnings(&j.Spec, nil, "spec")...)
		}
		if j.Generation == old.Generation {
			return nil
		}
		return jobWarnings(&j.Spec, &old.Spec, "spec")
	},
	fields: func(j *batchv1.Job) fields.Set {
		return fields.Set{"status.successful": strconv.Itoa(int(j.Status.Succeeded))}
	},
	options: map[string]bool{string(features.WorkloadWithJob): enabled(features.WorkloadWithJob)},
})

// CronJobs are batch/v1 cron jobs.
var CronJobs = declare(kind[batchv1.CronJob, batch.CronJob, batchv1.CronJobList]{
	Resource: Resource{
		GroupVersionKind: batchv1.SchemeGroupVersion.WithKind("CronJob"),
		Plural:           "cronjobs", Singular: "cronjob", ShortNames: []string{"cj"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "cronjobs", Status: true,
	},
	prepareCreate: func(c *batch.CronJob) {
		c.Status = batch.CronJobStatus{}
		c.Generation = 1
		jobutil.DropDisabledFields(&c.Spec.JobTemplate.Spec, nil)
		podutil.DropDisabledTemplateFields(&c.Spec.JobTemplate.Spec.Template, nil)
	},
	prepareUpdate: func(c, old *batch.CronJob, sub string) {
		if sub == "status" {
			c.Spec = old.Spec
			return
		}
		c.Status = old.Status
		jobutil.DropDisabledFields(&c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec)
		podutil.DropDisabledTemplateFields(&c.Spec.JobTemplate.Spec.Template, &old.Spec.JobTemplate.Spec.Template)
		if !apiequality.Semantic.DeepEqual(c.Spec, old.Spec) {
			c.Generation = old.Generation + 1
		}
	},
	validate: func(c *batch.CronJob) field.ErrorList {
		return batchvalidation.ValidateCronJobCreate(c, podutil.GetValidationOptionsFromPodTemplate(&c.Spec.JobTemplate.Spec.Template, nil))
	},
	validateUpdate: func(c, old *batch.CronJob, sub string) field.ErrorList {
		if sub == "status" {
			return nil
		}
		opts := podutil.GetValidationOptionsFromPodTemplate(&c.Spec.JobTemplate.Spec.Template, &old.Spec.JobTemplate.Spec.Template)
		return batchvalidation.ValidateCronJobUpdate(c, old, opts)
	},
	warnings: func(c, old *batch.CronJob) []string {
		if old == nil {
			return append(nameWarning(c.Name, "Pod names and hostnames"), jobWarnings(&c.Spec.JobTemplate.Spec, nil, "spec", "jobTemplate", "spec")...)
		}
		var out []string
		if c.Generation != old.Generation {
			out = jobWarnings(&c.Spec.JobTemplate.Spec, &old.Spec.JobTemplate.Spec, "spec", "jobTemplate", "spec")
		}
		if strings.Contains(c.Spec.Schedule, "TZ") {
			out = append(out, fmt.Sprintf("cannot use TZ or CRON_TZ in %s, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
				field.NewPath("spec", "spec", "schedule")))
		}
		return out
	},
	options: map[string]bool{string(features.WorkloadWithJob): enabled(features.WorkloadWithJob)},
})

func jobWarnings(spec, old *batch.JobSpec, path string, more ...string) []string {
	return jobutil.WarningsForJobSpec(context.Background(), field.NewPath(path, more...), spec, old)
}

// labelAsPods gives a job without labels those of its pods: upstream's default, which would fill them in when the job is read again.
func labelAsPods(j *batch.Job) {
	if len(j.Labels) == 0 {
		j.Labels = maps.Clone(j.Spec.Template.Labels)
	}
}

// selectOwnPods gives the job's pods labels that no other job's pods have, and selects them. Labels that are there already stay, for
// validation to refuse.
func selectOwnPods(j *batch.Job) {
	pods := maps.Clone(j.Spec.Template.Labels)
	if pods == nil {
		pods = map[string]string{}
	}
	for label, value := range map[string]string{
		batch.LegacyJobNameLabel: j.Name, batch.JobNameLabel: j.Name,
		batch.LegacyControllerUidLabel: string(j.UID), batch.ControllerUidLabel: string(j.UID),
	} {
		if _, given := pods[label]; !given {
			pods[label] = value
		}
	}
	j.Spec.Template.Labels = pods
	selector := j.Spec.Selector.DeepCopy()
	if selector == nil {
		selector = &metav1.LabelSelector{}
	}
	if _, given := selector.MatchLabels[batch.ControllerUidLabel]; !given {
		metav1.AddLabelToSelector(selector, batch.ControllerUidLabel, string(j.UID))
	}
	j.Spec.Selector = selector
}

// jobOptions is what validation allows in j: more where the old job, if there is one, had it already.
func jobOptions(j, old *batch.Job) batchvalidation.JobValidationOptions {
	var oldTemplate *core.PodTemplateSpec
	if old != nil {
		oldTemplate = &old.Spec.Template
	}
	opts := batchvalidation.JobValidationOptions{
		PodValidationOptions:  podutil.GetValidationOptionsFromPodTemplate(&j.Spec.Template, oldTemplate),
		RequirePrefixedLabels: true,
	}
	if old == nil {
		return opts
	}
	opts.AllowInvalidLabelValueInSelector = opts.AllowInvalidLabelValueInSelector || badSelector(old.Spec.Selector)
	// A suspended job that has no pods may get another template: its resources and where they run.
	idle := ptr.Deref(old.Spec.Suspend, false) && old.Status.Active == 0 &&
		(old.Status.StartTime == nil || batchvalidation.IsConditionTrue(old.Status.Conditions, batch.JobSuspended))
	opts.AllowMutablePodResources, opts.AllowMutableSchedulingDirectives = idle, idle
	_, named := old.Spec.Template.Labels[batch.JobNameLabel]
	_, owned := old.Spec.Template.Labels[batch.ControllerUidLabel]
	opts.RequirePrefixedLabels = named && owned
	return opts
}
