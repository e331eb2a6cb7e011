from .ensembles import average_tasks as average_tasks
from .ensembles import greedy_soup as greedy_soup
from .ensembles import joint_task as joint_task
from .l2_sp import L2SP as L2SP
from .recipes import RECIPES as RECIPES
from .recipes import find_recipes as find_recipes
from .saving import save_ensemble as save_ensemble
from .saving import save_task as save_task
