"""Transfer methods of several trainings, carried out as resumable stages in one run folder."""
